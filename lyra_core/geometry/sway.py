"""A gentle sideways sway around a camera path, so that a fly-through shows depth that the path itself hides."""

from __future__ import annotations

import math

import torch

from lyra_core.values import CameraPath


def swayed_path(path: CameraPath, *, sway_deg: float, num_frames: int, pivot_m: float) -> CameraPath:
    """Sample a path evenly and swing each camera on a small circle about a point in front of it.

    Args:
        path: cameras to follow.
        sway_deg: amplitude of the swing seen from the pivot, degrees; one full period over the path.
        num_frames: cameras to return, first and last frame included.
        pivot_m: distance of the pivot along the view axis, metres.

    Returns:
        num_frames cameras; the first equals the path's first (the sway starts and ends at zero).
    """
    picked = torch.linspace(0, len(path) - 1, num_frames, dtype=torch.float64).round().long()
    sampled = path[picked]
    angle = math.radians(sway_deg) * torch.sin(torch.linspace(0, 2 * math.pi, num_frames, dtype=torch.float64))
    swing = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    swing[:, 0, 0] = swing[:, 2, 2] = torch.cos(angle)
    swing[:, 0, 2] = torch.sin(angle)
    swing[:, 2, 0] = -torch.sin(angle)
    pivot = torch.tensor([0.0, 0.0, pivot_m], dtype=torch.float64)
    # Rotating the world about the pivot is the camera orbiting it: x -> R (x - p) + p.
    swing[:, :3, 3] = pivot - swing[:, :3, :3] @ pivot
    return CameraPath(
        world_to_cam=swing @ sampled.world_to_cam,
        intrinsics=sampled.intrinsics,
        image_height=path.image_height,
        image_width=path.image_width,
        name=f"{path.name}-sway",
    )
