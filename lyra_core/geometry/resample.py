"""Cameras between cameras: a path at other moments, or at another frame rate.

Rotations move on arcs and centres on lines, evenly from one known camera to the next.

Legend: k known cameras, t wanted ones.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import slerp_rotations
from lyra_core.geometry.rotation import invert_rigid, rigid
from lyra_core.values import CameraPath


def resampled(path: CameraPath, from_fps: float, to_fps: float) -> CameraPath:
    """A path that was recorded at one frame rate, for a video of another: the same cameras at the same moments.

    The first and the last camera stay; where the length is no whole number of new frames, the last one is moved by
    less than half a frame in time.

    Args:
        path: one camera a frame.
        from_fps: its rate.
        to_fps: of the video.

    Raises:
        CameraPathError: a rate that is not positive and finite.
    """
    if not all(math.isfinite(rate) and rate > 0 for rate in (from_fps, to_fps)):
        raise CameraPathError(f"frame rates are positive numbers, found {from_fps:g} and {to_fps:g}")
    last = len(path) - 1
    place = torch.arange(last + 1, dtype=torch.float64)
    wanted = torch.linspace(0.0, last, 1 + round(last * to_fps / from_fps), dtype=torch.float64)
    left, right, share = _neighbours(place, wanted)
    return replace(
        path,
        world_to_cam=poses_at(path.world_to_cam, place, wanted),
        intrinsics=torch.lerp(path.intrinsics[left], path.intrinsics[right], share[:, None, None]),
    )


def poses_at(
    world_to_cam: Float[Tensor, "k 4 4"], place: Float[Tensor, " k"], wanted: Float[Tensor, " t"]
) -> Float[Tensor, "t 4 4"]:
    """World-to-camera transforms between known ones.

    Args:
        world_to_cam: the known ones.
        place: when they are, rising.
        wanted: when cameras are asked for, within the known moments.
    """
    poses = invert_rigid(world_to_cam)
    left, right, share = _neighbours(place.double(), wanted.double())
    rotation = slerp_rotations(poses[left, :3, :3], poses[right, :3, :3], share)
    center = torch.lerp(poses[left, :3, 3], poses[right, :3, 3], share[:, None])
    return invert_rigid(rigid(rotation, center))


def _neighbours(place: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the known moments around each wanted one, and how far it is from the first to the second."""
    right = torch.searchsorted(place, wanted).clamp(min=min(1, len(place) - 1), max=len(place) - 1)
    left = (right - 1).clamp(min=0)
    span = place[right] - place[left]
    return left, right, (wanted - place[left]) / torch.where(span > 0, span, torch.ones_like(span))
