"""The camera presets of the Lyra 2 reference implementation, number for number (nv-tlabs/lyra
9fffc9a, Lyra-2).

Used by the recipes of the released model only, so its quirks are kept and named at their line: moves that stop
one step short of their distance, a cartwheel-free look-at whose world y is the image's y, a back
path with the camera centre written as translation. `camera_paths` has the presets for everybody
else.

A preset here is a sequence of camera centres and of points looked at, in the seed camera's frame
and in units of depth, plus (for the rotations) a turn applied after looking. Arithmetic is
float64; the reference's is float32, the two agree to 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import rotation_about_axis
from lyra_core.geometry.requests import REFERENCE_DIRECTIONS, REFERENCE_PRESETS
from lyra_core.geometry.rotation import rigid
from lyra_core.values import CameraPath

# Zoom presets bend up or down by these shares of the distance, forward and backward.
BEND_IN, BEND_OUT = 0.04, 0.12
# Noise presets shake by this share of the distance, so that pose alignment has a baseline.
NOISE_SHARE = 1e-4
ROTATE_DEG = 20.0
# The dolly zoom places its subject at this share of the depth and moves by 3 scene units, whatever
# the depth.
DOLLY_SUBJECT_SHARE, DOLLY_TRAVEL = 0.185, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """What a preset is given: n frames, depth in metres, strength, direction, its noise."""

    num_frames: int
    depth: float
    strength: float
    direction: str
    generator: torch.Generator | None

    @property
    def sign(self) -> float:
        """Right is forward or positive; every other direction is negative."""
        return 1.0 if self.direction == "right" else -1.0

    @property
    def planar_sign(self) -> dict[int, float]:
        """Along x only "right" is negative, along y only "up" is positive (slides and orbits)."""
        return {0: -self.sign, 1: 1.0 if self.direction == "up" else -1.0}

    @property
    def reach(self) -> float:
        return self.strength * self.depth

    def ramp(self, count: int) -> Tensor:
        """0, 1/n, ..., (n-1)/n: the reference never reaches the full distance."""
        return torch.arange(count, dtype=torch.float64) / count

    def fraction(self) -> Tensor:
        """0 to 1, both included; 0 for a single frame."""
        return torch.arange(self.num_frames, dtype=torch.float64) / max(self.num_frames - 1, 1)

    def noise(self) -> Tensor:
        """Two normal numbers a frame, drawn one at a time: torch fills larger draws in another
        order."""
        if self.generator is None:
            raise CameraPathError(
                "noise presets draw random numbers: pass generator=torch.Generator().manual_seed(seed)"
            )
        draws = [float(torch.randn(1, generator=self.generator)) for _ in range(2 * self.num_frames)]
        return torch.tensor(draws, dtype=torch.float64).reshape(-1, 2) * (NOISE_SHARE * self.reach)


def reference_camera_path(
    preset: str,
    direction: str,
    *,
    num_frames: int,
    intrinsics: Float[Tensor, "3 3"],
    image_size: tuple[int, int],
    scene_depth_m: float,
    strength: float,
    generator: torch.Generator | None = None,
) -> CameraPath:
    """A preset of the reference implementation from an identity first camera.

    `back` and `back_simple` return 2 n - 1 frames, as the reference does.

    Args:
        preset: one of `requests.REFERENCE_PRESETS`.
        direction: left, right, up or down; presets without that direction take anything but
            "right" as left.
        num_frames: n, at least 2.
        intrinsics: of the first frame, pixels. [3 3]
        image_size: height and width in pixels.
        scene_depth_m: the 25 % quantile of the seed's valid depth.
        strength: share of that depth to travel, or radians (orbits) or degrees (rotate_spot) to
            turn.
        generator: for the noise presets; the reference's numbers come from seed 0.

    Raises:
        CameraPathError: an unknown preset or direction, fewer than 2 frames, a noise preset
            without generator.
    """
    if preset not in REFERENCE_PRESETS or direction not in REFERENCE_DIRECTIONS:
        raise CameraPathError(
            f"unknown reference preset {preset!r} {direction!r}: wanted one of "
            f"{', '.join(REFERENCE_PRESETS)} "
            f"with {', '.join(REFERENCE_DIRECTIONS)}"
        )
    if num_frames < 2 or not (math.isfinite(scene_depth_m) and scene_depth_m > 0):
        raise CameraPathError(
            f"a reference preset needs at least 2 frames and a positive depth, found {num_frames} and {scene_depth_m}"
        )
    move = _Move(
        num_frames=num_frames,
        depth=scene_depth_m,
        strength=strength,
        direction=direction,
        generator=generator,
    )
    world_to_cam = _BUILDERS[preset](move)
    lenses = intrinsics.to(torch.float64).repeat(len(world_to_cam), 1, 1)
    if preset == "dolly_zoom":
        lenses[:, :2, :2] *= _dolly_zoom_gain(move)[:, None, None]
    return CameraPath(
        world_to_cam=world_to_cam,
        intrinsics=lenses,
        image_height=image_size[0],
        image_width=image_size[1],
        name=f"lyra2/{preset}/{direction}",
    )


def _look(centers: Tensor, targets: Tensor) -> Tensor:
    """Rotations whose rows are right = y x forward, forward x right and forward, for all frames."""
    forward = torch.nn.functional.normalize(targets - centers, dim=-1)
    y_axis = forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(y_axis, forward), dim=-1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], -2)


def _looking(centers: Tensor, targets: Tensor) -> Tensor:
    rotation = _look(centers, targets.expand_as(centers))
    return rigid(rotation, -(rotation @ centers[..., None])[..., 0])


def _ahead(distance: float) -> Tensor:
    return torch.tensor([0.0, 0.0, distance], dtype=torch.float64)


def _columns(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.stack([x, y, z], -1)


def _original(move: _Move) -> Tensor:
    return torch.eye(4, dtype=torch.float64).repeat(move.num_frames, 1, 1)


def _translate(
    axis: int, *, noisy: bool = False, bent: bool = False, outward: bool = False
) -> Callable[[_Move], Tensor]:
    """A straight move along one axis of the first camera, optionally shaken, bent or looking
    away."""

    def build(move: _Move) -> Tensor:
        ramp = move.ramp(move.num_frames)
        centers = torch.zeros(len(ramp), 3, dtype=torch.float64)
        centers[:, axis] = move.sign * move.reach * ramp
        if bent:
            share = BEND_IN if move.sign > 0 else BEND_OUT
            centers[:, 1] += move.sign * share * move.reach * ramp
        if noisy:
            centers[:, [i for i in range(3) if i != axis]] += move.noise()
        # Along z the target lies beyond the end of the move, so that the camera never passes it.
        target = _ahead(move.depth * (1 + move.strength) if axis == 2 else move.depth)
        return _looking(centers, target + 2 * centers if outward else target)

    return build


def _then_still(axis: int) -> Callable[[_Move], Tensor]:
    """The straight move in the first half of the frames, then rest."""

    def build(move: _Move) -> Tensor:
        half = move.num_frames // 2
        ramp = move.ramp(half)
        centers = torch.zeros(half, 3, dtype=torch.float64)
        centers[:, axis] = move.sign * move.reach * ramp
        moving = _looking(centers, _ahead(move.depth * (1 + move.strength) if axis == 2 else move.depth))
        return torch.cat([moving, moving[-1:].repeat(move.num_frames - half, 1, 1)])

    return build


def _slide(axis: int) -> Callable[[_Move], Tensor]:
    """A move along an axis that keeps the first orientation and reaches its distance.

    The sign is the translation's: the centre moves the other way, so "right" and "up" are truly
    that.
    """

    def build(move: _Move) -> Tensor:
        world_to_cam = _original(move)
        world_to_cam[:, axis, 3] = move.planar_sign[axis] * move.reach * move.fraction()
        return world_to_cam

    return build


def _ring(move: _Move, radius_x: float, radius_y: float, circles: int, *, centered: bool) -> Tensor:
    """Centres on circles in the image plane; from the first camera, or (centered) about it."""
    angle = 2 * math.pi * circles * move.fraction()
    x = radius_x * angle.cos() if centered else move.sign * radius_x * (angle.cos() - 1)
    return _columns(x, radius_y * angle.sin(), torch.zeros_like(angle)) * move.depth


def _spiral(move: _Move) -> Tensor:
    return _looking(
        _ring(move, 0.15 * move.strength, 0.10 * move.strength, 2, centered=False),
        _ahead(move.depth),
    )


def _spiral_center(move: _Move) -> Tensor:
    return _looking(_ring(move, 0.03, 0.02, 1, centered=True), _ahead(move.depth))


def _spiral_outwards(move: _Move) -> Tensor:
    # As released this preset raises (an integer camera position); these are the poses it describes.
    ring = _ring(move, 0.3 * move.strength, 0.2 * move.strength, 1, centered=False)
    return _looking(torch.zeros_like(ring), _ahead(move.depth) + ring)


def _spiral_zoom(move: _Move) -> Tensor:
    ring = _ring(move, 0.01875 * move.strength, 0.0125 * move.strength, 2, centered=False)
    ring[:, 2] = move.sign * move.reach * move.fraction()
    return _looking(ring, _ahead(move.depth * (1 + move.strength)))


def _orbit(axis: int) -> Callable[[_Move], Tensor]:
    """An orbit of `strength` radians about the point ahead; `axis` is the coordinate that moves
    first."""

    def build(move: _Move) -> Tensor:
        angle = math.pi + move.planar_sign[axis] * move.strength * move.fraction()
        centers = torch.zeros(move.num_frames, 3, dtype=torch.float64)
        centers[:, axis] = move.depth * angle.sin()
        centers[:, 2] = move.depth * (1 + angle.cos())
        return _looking(centers, _ahead(move.depth))

    return build


def _back(radius_x: float, radius_y: float, *, proper: bool) -> Callable[[_Move], Tensor]:
    """The still seed, then one circle (in scene units, whatever the depth) appended to the
    reversed path."""

    def build(move: _Move) -> Tensor:
        forward = _original(move)
        count = move.num_frames - 1
        angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
        centers = _columns(move.sign * radius_x * (angle.cos() - 1), radius_y * angle.sin(), 0 * angle)
        rotation = _look(centers, _ahead(move.depth).expand_as(centers))
        # `back` writes the camera centre where the translation belongs; back_simple does not.
        translation = -(rotation @ centers[..., None])[..., 0] if proper else centers
        return torch.cat([forward, rigid(rotation, translation)])

    return build


def _dolly_zoom_centers(move: _Move) -> Tensor:
    return DOLLY_TRAVEL * move.fraction()


def _dolly_zoom(move: _Move) -> Tensor:
    # The camera passes its subject and turns round to keep looking at it.
    z = _dolly_zoom_centers(move)
    subject = _ahead(DOLLY_SUBJECT_SHARE * move.depth)
    return _looking(_columns(0 * z, 0 * z, z), subject)


def _dolly_zoom_gain(move: _Move) -> Tensor:
    """Focal gain that would keep the subject's size if the camera moved back, not forward."""
    subject = DOLLY_SUBJECT_SHARE * move.depth
    return subject / (subject + _dolly_zoom_centers(move))


def _turn(angle: Tensor) -> Tensor:
    return rotation_about_axis((0.0, 1.0, 0.0), angle)


def _rotate_zoom(zoom_sign: float) -> Callable[[_Move], Tensor]:
    """Turn by 20 degrees in the first half, then move along the new forward direction."""

    def build(move: _Move) -> Tensor:
        half = move.num_frames // 2
        full = math.radians(ROTATE_DEG) * move.sign
        turning = _turn(full * torch.arange(half, dtype=torch.float64) / max(half - 1, 1))
        rest = move.num_frames - half
        travel = torch.arange(rest, dtype=torch.float64) / max(rest - 1, 1) * zoom_sign * move.reach
        rotation = _turn(torch.tensor(full, dtype=torch.float64))
        centers = rotation[2] * travel[:, None]
        # The reference multiplies by the transpose: the camera drifts off its own forward axis.
        moving = rigid(rotation.expand(rest, 3, 3), -centers @ rotation)
        return torch.cat([rigid(turning, torch.zeros(half, 3, dtype=torch.float64)), moving])

    return build


def _rotate_spot(move: _Move, centers: Tensor | None = None) -> Tensor:
    turn = _turn(math.radians(move.strength) * move.sign * move.fraction())
    if centers is None:
        centers = torch.zeros(move.num_frames, 3, dtype=torch.float64)
    still = _looking(centers, _ahead(move.depth))
    return rigid(turn, torch.zeros(move.num_frames, 3, dtype=torch.float64)) @ still


def _rotate_spot_noise(move: _Move) -> Tensor:
    """A rotation on a tiny slow circle: a baseline for pose alignment, not random despite its
    name."""
    angle = 2 * math.pi * 0.001 * torch.arange(move.num_frames, dtype=torch.float64)
    radius = NOISE_SHARE * 0.1 * move.depth
    return _rotate_spot(move, radius * _columns(angle.cos(), angle.sin(), 0 * angle))


_BUILDERS: dict[str, Callable[[_Move], Tensor]] = {
    "original": _original,
    "spiral": _spiral,
    "spiral_center": _spiral_center,
    "spiral_outwards": _spiral_outwards,
    "horizontal": _translate(0),
    "horizontal_noise": _translate(0, noisy=True),
    "horizontal_lift": _translate(1),
    "horizontal_lift_noise": _translate(1, noisy=True),
    "horizontal_zoom": _translate(2),
    "horizontal_zoom_noise": _translate(2, noisy=True),
    "horizontal_zoom_bend": _translate(2, bent=True),
    "horizontal_zoom_noise_bend": _translate(2, noisy=True, bent=True),
    "horizontal_zoom_still": _then_still(2),
    "horizontal_still": _then_still(0),
    "horizontal_simple": _slide(0),
    "vertical_simple": _slide(1),
    "horizontal_outward": _translate(0, outward=True),
    "back": _back(0.3, 0.2, proper=False),
    "back_simple": _back(0.15, 0.1, proper=True),
    "dolly_zoom": _dolly_zoom,
    "horizontal_spiral": _spiral_zoom,
    "orbit_horizontal": _orbit(0),
    "orbit_vertical": _orbit(1),
    "rotate_zoom_in": _rotate_zoom(1.0),
    "rotate_zoom_out": _rotate_zoom(-1.0),
    "rotate_spot": _rotate_spot,
    "rotate_spot_noise": _rotate_spot_noise,
}
