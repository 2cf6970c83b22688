"""Camera paths by name: the field's moves, scaled by how far away the seed's scene is.

The world frame is the seed camera's frame, so every path starts at the identity. Lengths are in
units of `scene_depth_m`, the 25 % quantile of the seed's valid depth, as in the Lyra 2 reference
implementation. Steady presets (see `requests`) move at a fixed pace a frame; closed ones spread
one gesture over all frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.errors import CameraPathError, DepthError
from lyra_core.geometry.camera import rotation_about_axis
from lyra_core.geometry.requests import (
    PRESETS,
    num_chunks,
    require_preset,
    split_reference_name,
)
from lyra_core.geometry.rotation import invert_rigid, rigid
from lyra_core.native import CHUNK_FRAMES
from lyra_core.values import CameraPath

# Pace of one chunk of 80 frames at strength 1: lengths in scene depths, angles in degrees.
DOLLY_DEPTHS = 0.25
ZOOM_DEPTHS = 0.5
# The zoom-out of the reference's demonstration rises by this share of the distance backward.
ZOOM_OUT_RISE = 0.15
TRUCK_DEPTHS = 0.25
PAN_DEG = 25.0
TILT_DEG = 15.0
TILT_LIMIT_DEG = 45.0
ORBIT_DEG = 20.0
SPIRAL_RADIUS_DEPTHS = 0.08
# Gestures of closed presets at strength 1, whatever the number of frames.
ARC_DEG = 35.0
WALK_DEPTHS = 0.5
LOOK_BACK_DEG = 180.0
OUT_DEPTHS = 0.5
# Share of a walk spent walking; the rest turns round.
WALK_SHARE = 0.5
# The reference's own noise comes from a generator seeded with this.
REFERENCE_NOISE_SEED = 0


def measure_scene_depth_m(depth_m: Float[Tensor, "h w"], valid: Bool[Tensor, "h w"] | None = None) -> float:
    """The 25 % quantile of valid depth, metres: the length presets are scaled by.

    Args:
        depth_m: z-depth in metres; 0, negative and non-finite values are not valid. [h w]
        valid: further restriction, such as "not sky". [h w]

    Raises:
        DepthError: no valid pixel.
    """
    good = torch.isfinite(depth_m) & (depth_m > 0)
    if valid is not None:
        good &= valid
    values = depth_m[good].to(torch.float64)
    if values.numel() == 0:
        raise DepthError(
            f"scaling a camera path needs valid depth: none of {depth_m.numel()} pixels is positive and finite"
        )
    # torch.quantile refuses more than 16 million values; the k-th value has no such limit.
    return float(values.kthvalue(max(1, math.ceil(0.25 * values.numel()))).values)


def build_camera_path(
    name: str,
    *,
    num_frames: int,
    intrinsics: Float[Tensor, "3 3"],
    image_height: int,
    image_width: int,
    scene_depth_m: float,
    strength: float = 1.0,
    any_count: bool = False,
) -> CameraPath:
    """The cameras of a preset, the first one being the seed's.

    Args:
        name: one of `requests.PRESETS`, or `lyra2/<preset>/<direction>` for the reference's own.
        num_frames: 1 + 80 k.
        intrinsics: of the seed image, pixels; the same for all frames. [3 3]
        image_height: rows of the seed image.
        image_width: columns of it.
        scene_depth_m: length unit of the preset, metres; see measure_scene_depth_m.
        strength: multiplies the pace (steady) or the gesture (closed).
        any_count: allow any positive number of frames, for previews; a model needs 1 + 80 k.

    Raises:
        CameraPathError: an unknown preset, a count that is not 1 + 80 k, a depth or strength that
            is not positive.
    """
    require_preset(name)
    if not any_count:
        num_chunks(num_frames)
    elif num_frames < 1:
        raise CameraPathError(f"a camera path needs at least one frame, found {num_frames}")
    for label, value in (("scene depth", scene_depth_m), ("strength", strength)):
        if not (math.isfinite(value) and value > 0):
            raise CameraPathError(f"the {label} of a camera path must be positive and finite, found {value}")
    reference = split_reference_name(name)
    if reference is not None:
        return _reference(reference, num_frames, intrinsics, (image_height, image_width), scene_depth_m, strength)
    frame = torch.arange(num_frames, dtype=torch.float64)
    if PRESETS[name].is_steady:
        centers, rotation = _STEADY[name](strength * frame / CHUNK_FRAMES)
    else:
        centers, rotation = _CLOSED[name](frame / max(num_frames - 1, 1), strength)
    cam_to_world = rigid(rotation.expand(num_frames, 3, 3), centers * scene_depth_m)
    return CameraPath(
        world_to_cam=invert_rigid(cam_to_world),
        intrinsics=intrinsics.to(torch.float64).repeat(num_frames, 1, 1),
        image_height=image_height,
        image_width=image_width,
        name=name,
    )


def _reference(
    preset_direction: tuple[str, str],
    num_frames: int,
    intrinsics: Tensor,
    image_size: tuple[int, int],
    depth_m: float,
    strength: float,
) -> CameraPath:
    from lyra_core.geometry.reference_presets import reference_camera_path

    path = reference_camera_path(
        *preset_direction,
        num_frames=num_frames,
        intrinsics=intrinsics,
        image_size=image_size,
        scene_depth_m=depth_m,
        strength=strength,
        generator=torch.Generator().manual_seed(REFERENCE_NOISE_SEED),
    )
    # The `back` presets return nearly twice the frames they are asked for.
    return path[:num_frames]


# A move gives camera centres in scene depths [t 3] and cam_to_world rotations [t 3 3] (or one [3
# 3]). u counts chunks (steady) or goes from 0 to 1 (closed).
_Placement = tuple[Tensor, Tensor]
_STRAIGHT = torch.eye(3, dtype=torch.float64)
_Y_DOWN = (0.0, 1.0, 0.0)
_X_RIGHT = (1.0, 0.0, 0.0)


def _line(x: float, y: float, z: float) -> Callable[[Tensor], _Placement]:
    def place(u: Tensor) -> _Placement:
        return u[:, None] * u.new_tensor([x, y, z]), _STRAIGHT

    return place


def _still(u: Tensor) -> Tensor:
    return torch.zeros(len(u), 3, dtype=torch.float64)


def _pan(deg: float) -> Callable[[Tensor], _Placement]:
    # Right-handed about the y axis, which points down: a positive turn looks to the right.
    return lambda u: (_still(u), rotation_about_axis(_Y_DOWN, math.radians(deg) * u))


def _tilt(deg: float) -> Callable[[Tensor], _Placement]:
    def place(u: Tensor) -> _Placement:
        limit = math.radians(TILT_LIMIT_DEG)
        # tanh: the asked pace at first, and no somersault however long the path.
        angle = limit * torch.tanh(math.radians(deg) / limit * u)
        return _still(u), rotation_about_axis(_X_RIGHT, angle)

    return place


def _around(angle: Tensor) -> _Placement:
    """On a circle about the point one scene depth ahead, looking at it; a positive angle is to the
    right."""
    centers = torch.stack([angle.sin(), 0 * angle, 1 - angle.cos()], -1)
    return centers, rotation_about_axis(_Y_DOWN, -angle)


def _orbit(deg: float) -> Callable[[Tensor], _Placement]:
    return lambda u: _around(math.radians(deg) * u)


def _spiral(u: Tensor) -> _Placement:
    """One turn a chunk on a circle through the seed camera, drifting forward, looking at a point
    that drifts along."""
    angle = 2 * math.pi * u
    radius = SPIRAL_RADIUS_DEPTHS
    offset = torch.stack([radius * angle.sin(), radius * (angle.cos() - 1)], -1)
    centers = torch.cat([offset, DOLLY_DEPTHS * u[:, None]], -1)
    forward = torch.nn.functional.normalize(torch.cat([-offset, torch.ones_like(u)[:, None]], -1), dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward.new_tensor(_Y_DOWN).expand_as(forward), forward))
    return centers, torch.stack([right, torch.linalg.cross(forward, right), forward], -1)


def _eased(u: Tensor) -> Tensor:
    """0 to 1, starting and ending at rest with bounded jerk: 6 u^5 - 15 u^4 + 10 u^3 (minimum
    jerk, Flash and Hogan 1985)."""
    u = u.clamp(0.0, 1.0)
    return u**3 * (10 + u * (6 * u - 15))


def _arc(deg: float) -> Callable[[Tensor, float], _Placement]:
    return lambda u, strength: _around(math.radians(deg) * strength * _eased(u))


def _walk_and_look_back(u: Tensor, strength: float) -> _Placement:
    centers = torch.zeros(len(u), 3, dtype=torch.float64)
    centers[:, 2] = WALK_DEPTHS * strength * _eased(u / WALK_SHARE)
    turn = _eased((u - WALK_SHARE) / (1 - WALK_SHARE))
    return centers, rotation_about_axis(_Y_DOWN, math.radians(LOOK_BACK_DEG) * turn)


def _out_and_back(u: Tensor, strength: float) -> _Placement:
    centers = torch.zeros(len(u), 3, dtype=torch.float64)
    centers[:, 2] = OUT_DEPTHS * strength * _eased(1 - (2 * u - 1).abs())
    return centers, _STRAIGHT


_STEADY: dict[str, Callable[[Tensor], _Placement]] = {
    "dolly-in": _line(0.0, 0.0, DOLLY_DEPTHS),
    "dolly-out": _line(0.0, 0.0, -DOLLY_DEPTHS),
    "zoom-in": _line(0.0, 0.0, ZOOM_DEPTHS),
    "zoom-out": _line(0.0, -ZOOM_OUT_RISE * ZOOM_DEPTHS, -ZOOM_DEPTHS),
    "truck-left": _line(-TRUCK_DEPTHS, 0.0, 0.0),
    "truck-right": _line(TRUCK_DEPTHS, 0.0, 0.0),
    "pan-left": _pan(-PAN_DEG),
    "pan-right": _pan(PAN_DEG),
    "tilt-up": _tilt(TILT_DEG),
    "tilt-down": _tilt(-TILT_DEG),
    "orbit-left": _orbit(-ORBIT_DEG),
    "orbit-right": _orbit(ORBIT_DEG),
    "spiral": _spiral,
}
_CLOSED: dict[str, Callable[[Tensor, float], _Placement]] = {
    "arc-left": _arc(-ARC_DEG),
    "arc-right": _arc(ARC_DEG),
    "walk-forward-and-look-back": _walk_and_look_back,
    "out-and-back": _out_and_back,
}
