"""One procedural scene, and many of them padded to equal numbers of shapes so that they render together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.procedural.atlas import Atlas
from lyra_core.procedural.primitives import (
    PARKED_M,
    Boxes,
    Ellipsoids,
    Frusta,
    Ground,
    Light,
    Surfaces,
    ground_height,
    move,
    pick,
    stack,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

FIRST = torch.tensor(0)
CAPACITY = (44, 28, 20)
"""Boxes, ellipsoids and frusta a scene may hold, which bounds the memory of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A static textured place.

    Attributes:
        seed: what it was made from.
        split: "train" or "heldout".
        kind: "room", "street", "terrain" or "tabletop".
        caption: one English sentence.
        boxes: k boxes; the other shapes alike.
        ellipsoids: k ellipsoids.
        frusta: k frusta.
        surfaces: looks of boxes, ellipsoids, frusta and the ground, in that order.
        ground: its waves.
        light: light, air and exposure.
        size_m: length of a natural step in it: 1 for rooms and streets, less on a table, more in the open.
        stand: where cameras may start: least x, z, greatest x, z, metres.
        eye_m: least and greatest height of a starting camera above the ground, metres.
        pitch_rad: mean tilt of a starting camera, positive looks down.
    """

    seed: int
    split: str
    kind: str
    caption: str
    boxes: Boxes
    ellipsoids: Ellipsoids
    frusta: Frusta
    surfaces: Surfaces
    ground: Ground
    light: Light
    size_m: float
    stand: tuple[float, float, float, float]
    eye_m: tuple[float, float]
    pitch_rad: float

    @property
    def is_flat(self) -> bool:
        """Whether the ground is the plane y = 0."""
        return bool((self.ground.amplitude == 0).all())

    def clearance_m(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Distance from points to the nearest shape or the ground, negative inside (exact or a little less).

        Args:
            points: world frame, metres.
        """
        p = points.to(torch.float32)
        boxes, ellipsoids, frusta = park_all(self)
        height = -p[:, 1] - ground_height(pick_one(self.ground), p[None, :, 0], p[None, :, 2])[0]
        return torch.stack(
            [
                height,
                _box_distance(p, pick(boxes, FIRST)),
                _ellipsoid_distance(p, pick(ellipsoids, FIRST)),
                _frustum_distance(p, pick(frusta, FIRST)),
            ]
        ).amin(0)


def pick_one(ground: Ground) -> Ground:
    """An unbatched ground as a batch of one."""
    return stack([ground])


def _own_axes(points: Tensor, center: Tensor, heading: Tensor) -> Tensor:
    delta = points[:, None] - center
    cos, sin = heading[:, 0], heading[:, 1]
    x = cos * delta[..., 0] + sin * delta[..., 2]
    z = cos * delta[..., 2] - sin * delta[..., 0]
    return torch.stack([x, delta[..., 1], z], -1)


def _box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    q = _own_axes(points, boxes.center, boxes.heading).abs() - boxes.half
    return (q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)).amin(-1)


def _ellipsoid_distance(points: Tensor, ellipsoids: Ellipsoids) -> Tensor:
    local = _own_axes(points, ellipsoids.center, ellipsoids.heading)
    scaled = (local / ellipsoids.half).norm(dim=-1)
    # exact for spheres; for others the radius along the ray from the centre bounds it well enough to keep away
    return ((scaled - 1) * ellipsoids.half.amin(-1)).amin(-1)


def _frustum_distance(points: Tensor, frusta: Frusta) -> Tensor:
    delta = points[:, None] - frusta.center
    radius = delta[..., [0, 2]].norm(dim=-1)
    bottom, height, top = frusta.half.unbind(-1)
    up = -delta[..., 1]
    taper = (top - bottom) / height
    side = (radius - bottom - taper * up.clamp(min=0).minimum(height)) / torch.sqrt(1 + taper * taper)
    ends = (up - height).maximum(-up)
    outside = torch.hypot(side.clamp(min=0), ends.clamp(min=0))
    return (outside + side.maximum(ends).clamp(max=0)).amin(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneBatch:
    """b scenes of equal numbers of shapes, with the textures they use.

    Attributes:
        boxes: padded, like the other shapes, with parked ones.
        ellipsoids: padded.
        frusta: padded.
        surfaces: in the order boxes, ellipsoids, frusta, ground.
        ground: waves.
        light: light, air and exposure.
        texture: texture of each surface. [b n]
        slope_texture: texture of the ground's steep parts. [b]
        atlas: the textures.
        is_flat: whether every ground is the plane y = 0.
    """

    boxes: Boxes
    ellipsoids: Ellipsoids
    frusta: Frusta
    surfaces: Surfaces
    ground: Ground
    light: Light
    texture: Int[Tensor, "b n"]
    slope_texture: Int[Tensor, " b"]
    atlas: Atlas
    is_flat: bool

    @classmethod
    def of(cls, scenes: Sequence[Scene], atlas: Atlas, *, capacity: tuple[int, int, int] | None = None) -> Self:
        """Batch scenes.

        Args:
            scenes: at least one.
            atlas: of the scenes' split.
            capacity: slots for boxes, ellipsoids and frusta; None for the largest scene's.

        Raises:
            ConfigError: no scenes, or a scene with more shapes than slots.
        """
        if not scenes:
            raise ConfigError("a batch needs at least one scene, found none")
        counts = [(_count(s.boxes), _count(s.ellipsoids), _count(s.frusta)) for s in scenes]
        most = tuple(max(1, *(c[i] for c in counts)) for i in range(3))
        slots = most if capacity is None else capacity
        if any(need > have for need, have in zip(most, slots, strict=True)):
            raise ConfigError(f"scenes hold up to {most} boxes, ellipsoids, frusta; the batch has slots for {slots}")
        surfaces = stack([_pad_surfaces(s.surfaces, c, slots) for s, c in zip(scenes, counts, strict=True)])
        ground = stack([s.ground for s in scenes])
        surfaces_on, ground_on = move(surfaces, atlas.texels.device), move(ground, atlas.texels.device)
        device = atlas.texels.device
        return cls(
            boxes=move(stack([_pad(s.boxes, slots[0]) for s in scenes]), device),
            ellipsoids=move(stack([_pad(s.ellipsoids, slots[1]) for s in scenes]), device),
            frusta=move(stack([_pad(s.frusta, slots[2]) for s in scenes]), device),
            surfaces=surfaces_on,
            ground=ground_on,
            light=move(stack([s.light for s in scenes]), device),
            texture=atlas.textures(surfaces_on.kind, surfaces_on.variant),
            slope_texture=atlas.textures(ground_on.slope_kind, ground_on.slope_variant),
            atlas=atlas,
            is_flat=all(s.is_flat for s in scenes),
        )

    def __len__(self) -> int:
        return int(self.texture.shape[0])

    def __getitem__(self, which: Tensor) -> Self:
        """Some of the scenes, by index tensor on the batch's device (repeats allowed)."""
        parts = {
            name: pick(getattr(self, name), which)
            for name in ("boxes", "ellipsoids", "frusta", "surfaces", "ground", "light")
        }
        return replace(self, texture=self.texture[which], slope_texture=self.slope_texture[which], **parts)

    def to(self, device: str | torch.device) -> Self:
        """The same scenes on another device."""
        parts = {
            name: move(getattr(self, name), device)
            for name in ("boxes", "ellipsoids", "frusta", "surfaces", "ground", "light")
        }
        return replace(
            self,
            texture=self.texture.to(device),
            slope_texture=self.slope_texture.to(device),
            atlas=self.atlas.to(device),
            **parts,
        )


Shape = TypeVar("Shape", Boxes, Ellipsoids, Frusta)


def _count(part: Boxes | Ellipsoids | Frusta) -> int:
    return int(part.center.shape[-2])


def _rows(tensor: Tensor, extra: int, fill: float) -> Tensor:
    return torch.cat([tensor, tensor.new_full((extra, *tensor.shape[1:]), fill)])


def _pad(part: Shape, slots: int) -> Shape:
    """Parked shapes up to a number of slots."""
    used = _count(part)
    changed = {}
    for name, fill in (("center", 0.0), ("half", 1e-3), ("heading", 0.0), ("porosity", 0.0)):
        if hasattr(part, name):
            changed[name] = _rows(getattr(part, name), slots - used, fill)
    changed["center"][used:, 1] = PARKED_M
    if "heading" in changed:
        changed["heading"][used:, 0] = 1.0
    return type(part)(**changed)


def park(part: Shape) -> Shape:
    """The same batched shapes, or one parked shape a scene where there are none: reductions need at least one."""
    if part.center.shape[-2]:
        return part
    return stack([_pad(pick(part, torch.tensor(i)), 1) for i in range(part.center.shape[0])])


def park_all(scene: Scene) -> tuple[Boxes, Ellipsoids, Frusta]:
    """The shapes of a scene as a batch of one, with at least one of each sort."""
    return park(stack([scene.boxes])), park(stack([scene.ellipsoids])), park(stack([scene.frusta]))


def _pad_surfaces(surfaces: Surfaces, counts: tuple[int, int, int], slots: tuple[int, ...]) -> Surfaces:
    """Surfaces moved to the slots of their shapes; parked slots repeat the ground's."""
    ground = sum(counts)
    order: list[int] = []
    start = 0
    for count, slot in zip(counts, slots, strict=True):
        order += [*range(start, start + count), *[ground] * (slot - count)]
        start += count
    return pick(surfaces, torch.tensor([*order, ground]))
