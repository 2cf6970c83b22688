"""A photograph, cameras and a depth network that knows where they are, for rollouts of tiny weights."""

from __future__ import annotations

import torch

from lyra_core.depth import DepthEstimate
from lyra_core.geometry.rotation import invert_rigid, rigid
from lyra_core.values import CameraPath, Seed

HEIGHT, WIDTH = 192, 320
INTRINSICS = torch.tensor([[300.0, 0, 160], [0, 300, 96], [0, 0, 1]], dtype=torch.float64)


def photograph() -> Seed:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 6, 10, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0]
    return Seed(image=(image * 255).to(torch.uint8).permute(1, 2, 0), intrinsics=INTRINSICS, sha256="0" * 64)


def path(num_frames: int, step_m: float = 0.05, turn_deg: float = 0.2) -> CameraPath:
    """Right and forward, turning left."""
    frame = torch.arange(num_frames, dtype=torch.float64)
    angle = torch.deg2rad(-turn_deg * frame)
    rotation = torch.eye(3, dtype=torch.float64).repeat(num_frames, 1, 1)
    rotation[:, 0, 0] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 0, 2], rotation[:, 2, 0] = angle.sin(), -angle.sin()
    centers = torch.stack([step_m * frame, torch.zeros_like(frame), 0.5 * step_m * frame], 1)
    return cameras(invert_rigid(rigid(rotation, centers)))


def cameras(world_to_cam: torch.Tensor) -> CameraPath:
    return CameraPath(
        world_to_cam=world_to_cam,
        intrinsics=INTRINSICS.repeat(len(world_to_cam), 1, 1),
        image_height=HEIGHT,
        image_width=WIDTH,
    )


def ids(num: int) -> list[str]:
    return [f"{i:032x}" for i in range(1, num + 1)]


class SlopeDepth:
    """A slope of 3 to 5 m in every frame, in a unit of its own; cameras move by `gain` times a known step.

    It is told no cameras, and finds a straight path.
    """

    def __init__(self, step_m=0.05, gain=1.0, unit=2.0, finds_cameras=True):
        self.step_m, self.gain, self.unit, self.finds_cameras = step_m, gain, unit, finds_cameras
        self.calls = []

    def estimate(self, frames, cameras_known, reference_depth_m=None):
        self.calls.append(len(frames))
        assert cameras_known is None
        rows = torch.linspace(3.0, 5.0, HEIGHT)[None, :, None].expand(len(frames), HEIGHT, WIDTH)
        unit = self.unit if len(frames) > 1 else 1.0
        found = None
        if self.finds_cameras:
            # The interval of the depth network is 8 frames: one step between frames that are looked at.
            place = torch.arange(len(frames), dtype=torch.float64) * 8 * self.step_m * self.gain * unit
            poses = torch.eye(4, dtype=torch.float64).repeat(len(frames), 1, 1)
            poses[:, 0, 3] = -place
            found = cameras(poses)
        return DepthEstimate(
            depth_m=(rows * unit).float().contiguous(),
            confidence=torch.ones(len(frames), HEIGHT, WIDTH),
            sky=torch.zeros(len(frames), HEIGHT, WIDTH, dtype=torch.bool),
            cameras=found,
        )
