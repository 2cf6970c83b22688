"""Camera paths that stop before they enter what the seed's depth map shows.

The reference implementation announces this for zoom-in but does not ship it; without it a steady
move through a nearby wall asks the model for the inside of the wall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.errors import CameraPathError, DepthError
from lyra_core.geometry.camera import project, slerp_rotations
from lyra_core.geometry.rotation import invert_rigid, rigid
from lyra_core.values import CameraPath

# Poses tested between two frames: a camera must not jump through a thin surface.
SUBSTEPS = 8
# The nearest of (2 r + 1)^2 pixels counts: a centre beside a thin trunk would otherwise see past
# it.
WINDOW_RADIUS = 2
# Halvings of the strength of a gesture: to half a percent.
FIT_STEPS = 8
# Frames over which the speed falls to zero, at most.
EASE_FRAMES = 24.0


def stop_before_geometry(
    path: CameraPath,
    depth_m: Float[Tensor, "h w"],
    intrinsics: Float[Tensor, "3 3"],
    margin_m: float,
) -> CameraPath:
    """The same path, eased to a stop before its centre comes within a margin of the seed's
    geometry. For paths without an end of their own; see fit_before_geometry for those that have one.

    A centre inside the seed camera's frustum is too near when its z is above the depth seen at its
    pixel less the margin. Outside the frustum, and where depth is 0 (unknown, sky), nothing is
    known and nothing stops. The number of frames stays; frames before the slowdown keep their
    bits; after it the camera rests.

    Args:
        path: its world frame is the seed camera's frame.
        depth_m: z-depth of the seed, metres, 0 where unknown. [h w]
        intrinsics: of the depth map, pixels. [3 3]
        margin_m: distance kept along z, metres.

    Raises:
        CameraPathError: a margin that is negative or not finite.
        DepthError: depth that is NaN.
    """
    if len(path) < 2:
        return path
    times, entering = _entering(path, depth_m, intrinsics, margin_m)
    if not entering.any():
        return path
    last_free = max(0.0, float(times[int(entering.nonzero()[0])]) - 1 / SUBSTEPS)
    slowed = _eased_times(len(path), last_free)
    kept = int((slowed == torch.arange(len(path), dtype=torch.float64)).sum())
    tail = sample_path(path, slowed[kept:])
    return replace(
        path,
        world_to_cam=torch.cat([path.world_to_cam[:kept], tail.world_to_cam]),
        intrinsics=torch.cat([path.intrinsics[:kept], tail.intrinsics]),
    )


def fit_before_geometry(
    gesture: Callable[[float], CameraPath],
    depth_m: Float[Tensor, "h w"],
    intrinsics: Float[Tensor, "3 3"],
    margin_m: float,
) -> CameraPath:
    """The largest form of a gesture whose centres keep a margin to the seed's geometry, at most the whole one.

    A gesture has an end that belongs to it: a way out has a way back, a walk has a look back. Stopped half way it would
    lose that end; made smaller it keeps it.

    Args:
        gesture: the path at a strength in (0, 1]; its world frame is the seed camera's frame.
        depth_m: z-depth of the seed, metres, 0 where unknown. [h w]
        intrinsics: of the depth map, pixels. [3 3]
        margin_m: distance kept along z, metres.

    Returns:
        the whole gesture where nothing is in its way; the smallest tried where even that is too near.

    Raises:
        CameraPathError: a margin that is negative or not finite.
        DepthError: depth that is NaN.
    """
    path = gesture(1.0)
    if not _entering(path, depth_m, intrinsics, margin_m)[1].any():
        return path
    low, high, path = 0.0, 1.0, gesture(2.0**-FIT_STEPS)
    for _ in range(FIT_STEPS):
        middle = (low + high) / 2
        smaller = gesture(middle)
        if _entering(smaller, depth_m, intrinsics, margin_m)[1].any():
            high = middle
        else:
            low, path = middle, smaller
    return path


def _entering(
    path: CameraPath, depth_m: Tensor, intrinsics: Tensor, margin_m: float
) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
    """Times between and at frames, and whether the centre is too near to the geometry there."""
    if not (math.isfinite(margin_m) and margin_m >= 0):
        raise CameraPathError(f"the margin to geometry is a distance in metres of 0 or more, found {margin_m}")
    if torch.isnan(depth_m).any():
        raise DepthError(f"depth must not be NaN ({int(torch.isnan(depth_m).sum())} pixels); use 0 for unknown")
    nearest = _nearest_in_window(depth_m.to("cpu", torch.float64))
    times = torch.arange(0, (len(path) - 1) * SUBSTEPS + 1, dtype=torch.float64) / SUBSTEPS
    return times, _too_near(sample_path(path, times).centers_m, nearest, intrinsics, margin_m)


def sample_path(path: CameraPath, times: Float[Tensor, " m"]) -> CameraPath:
    """Cameras at fractional frame indices, clamped to the path: centres and intrinsics linear,
    rotations slerp."""
    times = times.to(torch.float64).clamp(0, len(path) - 1)
    low = times.floor().long().clamp_max(max(len(path) - 2, 0))
    high = (low + 1).clamp_max(len(path) - 1)
    fraction = times - low
    poses = path.cam_to_world
    centers = torch.lerp(poses[low, :3, 3], poses[high, :3, 3], fraction[:, None])
    rotation = slerp_rotations(poses[low, :3, :3], poses[high, :3, :3], fraction)
    return replace(
        path,
        world_to_cam=invert_rigid(rigid(rotation, centers)),
        intrinsics=torch.lerp(path.intrinsics[low], path.intrinsics[high], fraction[:, None, None]),
    )


def _nearest_in_window(depth_m: Tensor) -> Tensor:
    """Least known depth around each pixel; infinite where none is known."""
    known = torch.where(depth_m > 0, depth_m, torch.inf)
    size = 2 * WINDOW_RADIUS + 1
    return -torch.nn.functional.max_pool2d(-known[None, None], size, stride=1, padding=WINDOW_RADIUS)[0, 0]


def _too_near(centers_m: Tensor, nearest_m: Tensor, intrinsics: Tensor, margin_m: float) -> Bool[Tensor, " m"]:
    height, width = nearest_m.shape
    pixels, z = project(centers_m, torch.eye(4, dtype=torch.float64), intrinsics)
    # Pixel (i, j) covers [j, j + 1) x [i, i + 1): its centre is at +0.5.
    column, row = pixels.floor().clamp(-1, max(height, width)).long().unbind(-1)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = torch.full_like(z, torch.inf)
    seen[inside] = nearest_m[row[inside], column[inside]]
    return z + margin_m > seen


def _eased_times(num_frames: int, stop: float) -> Tensor:
    """Frame times that run at speed 1 and then brake evenly, to rest at `stop`."""
    frame = torch.arange(num_frames, dtype=torch.float64)
    braking = min(EASE_FRAMES / 2, stop)
    if braking <= 0:
        return torch.zeros_like(frame)
    # Even braking from speed 1 over 2 b frames covers b frames of the path: x - x^2 / (4 b).
    x = (frame - (stop - braking)).clamp(0, 2 * braking)
    return torch.where(x > 0, (stop - braking) + x - x**2 / (4 * braking), frame)
