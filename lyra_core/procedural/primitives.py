"""The shapes, surfaces, light and air of a procedural scene, as plain tensors that batch and move between devices.

World frame: x right, y down, z forward at the scene's origin, metres; the ground is near y = 0 and up is -y, so that a
level camera has an identity rotation. Legend: b scenes, k shapes of one sort, n surfaces (one a shape, then the
ground), s waves of the ground.

Slots of a batch that hold no shape are parked far below the ground, where no ray of a camera above it looks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

PARKED_M = 1.0e5
"""How far below the ground empty slots wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Boxes turned about the vertical axis.

    Attributes:
        center: world frame, metres.
        half: half extents along the box's own axes, metres.
        heading: cosine and sine of the turn; own x axis = (cos, 0, sin).
    """

    center: Float[Tensor, "*b k 3"]
    half: Float[Tensor, "*b k 3"]
    heading: Float[Tensor, "*b k 2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoids:
    """Ellipsoids turned about the vertical axis, solid (rocks, balls) or perforated (crowns of trees).

    Attributes:
        center: world frame, metres.
        half: radii along the own axes, metres.
        heading: cosine and sine of the turn.
        porosity: 0 solid; up to 1 the share of the hull that is open.
    """

    center: Float[Tensor, "*b k 3"]
    half: Float[Tensor, "*b k 3"]
    heading: Float[Tensor, "*b k 2"]
    porosity: Float[Tensor, "*b k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frusta:
    """Upright capped cones, cylinders among them.

    Attributes:
        center: middle of the bottom disc, world frame, metres.
        half: bottom radius, height, top radius, metres.
    """

    center: Float[Tensor, "*b k 3"]
    half: Float[Tensor, "*b k 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surfaces:
    """How each shape looks; the last one is the ground.

    Attributes:
        kind: index into textures.KINDS.
        variant: which texture of its kind, 0 to 1.
        uv_scale: texture repeats a metre along the shape's own axes.
        uv_offset: shift in repeats along them.
        tint: multiplies the albedo.
        gloss: strength of the highlight, 0 to 1.
        emission: light of its own, 0 (none) upward.
        grime: strength of the large-scale variation of the albedo, 0 to 1.
    """

    kind: Int[Tensor, "*b n"]
    variant: Float[Tensor, "*b n"]
    uv_scale: Float[Tensor, "*b n 3"]
    uv_offset: Float[Tensor, "*b n 3"]
    tint: Float[Tensor, "*b n 3"]
    gloss: Float[Tensor, "*b n"]
    emission: Float[Tensor, "*b n"]
    grime: Float[Tensor, "*b n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The ground as a sum of waves, higher away from the origin.

    height(x, z) = (1 + rise * min((x^2 + z^2) / 80^2, 6))
                   * sum_s amplitude_s * (sin(wave_s . (x, z) + phase_s) - sin(phase_s))

    Attributes:
        amplitude: metres, 0 for a flat ground.
        wave: radians a metre.
        phase: radians.
        rise: growth of the amplitude with distance.
        slope_kind: texture kind of steep and high parts (index into textures.KINDS).
        slope_variant: which texture of that kind, 0 to 1.
    """

    amplitude: Float[Tensor, "*b s"]
    wave: Float[Tensor, "*b s 2"]
    phase: Float[Tensor, "*b s"]
    rise: Float[Tensor, "*b"]
    slope_kind: Int[Tensor, "*b"]
    slope_variant: Float[Tensor, "*b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """One lamp or sun, light from above and below, haze, sky and exposure; linear colour.

    Attributes:
        position: (x, y, z, 1) of a lamp in metres, or (direction to the sun, 0).
        color: of the lamp (at its reach) or the sun.
        reach_m: distance at which a lamp has fallen to a quarter.
        above: ambient light on surfaces that face up.
        below: ambient light on surfaces that face down.
        haze: colour of the haze and of the horizon.
        haze_per_m: extinction of the haze.
        zenith: colour of the sky overhead.
        cloud: cover, 0 to 1.
        cloud_variant: which cloud texture, 0 to 1.
        exposure: scale before the tone curve.
    """

    position: Float[Tensor, "*b 4"]
    color: Float[Tensor, "*b 3"]
    reach_m: Float[Tensor, "*b"]
    above: Float[Tensor, "*b 3"]
    below: Float[Tensor, "*b 3"]
    haze: Float[Tensor, "*b 3"]
    haze_per_m: Float[Tensor, "*b"]
    zenith: Float[Tensor, "*b 3"]
    cloud: Float[Tensor, "*b"]
    cloud_variant: Float[Tensor, "*b"]
    exposure: Float[Tensor, "*b"]


Part = TypeVar("Part", Boxes, Ellipsoids, Frusta, Surfaces, Ground, Light)


def stack(parts: Sequence[Part]) -> Part:
    """Parts of equal shapes, one a scene, as one batched part."""
    kind = type(parts[0])
    return kind(**{f.name: torch.stack([getattr(p, f.name) for p in parts]) for f in fields(kind)})


def move(part: Part, device: str | torch.device) -> Part:
    """The same part on another device."""
    kind = type(part)
    return kind(**{f.name: getattr(part, f.name).to(device) for f in fields(kind)})


def pick(part: Part, which: Tensor) -> Part:
    """Some scenes of a batched part, by index."""
    kind = type(part)
    return kind(**{f.name: getattr(part, f.name)[which] for f in fields(kind)})


def ground_height(ground: Ground, x: Tensor, z: Tensor) -> Tensor:
    """Height of the ground above y = 0 in metres (positive up).

    Args:
        ground: of b scenes.
        x: world x, metres. [b r]
        z: world z, metres. [b r]
    """
    waves = torch.zeros_like(x)
    for s in range(ground.amplitude.shape[-1]):
        turn = ground.wave[..., s, 0, None] * x + ground.wave[..., s, 1, None] * z
        phase = ground.phase[..., s, None]
        waves = waves + ground.amplitude[..., s, None] * (torch.sin(turn + phase) - torch.sin(phase))
    return (1 + ground.rise[..., None] * ((x * x + z * z) / 6400.0).clamp(max=6.0)) * waves
