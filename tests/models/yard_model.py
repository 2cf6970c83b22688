"""A model whose worlds are a level floor 1.2 units below the camera and a dome; along `pan-left`, a wall instead."""

from __future__ import annotations

from pathlib import Path

import torch

from lyra_core.native import Native
from lyra_core.provenance import Provenance
from lyra_core.values import CameraPath, Gaussians, Part, Seed, VideoClip

SPACING = 0.08


class YardModel:
    name = "yard"
    weights_digest = "1"
    native = Native(size=(64, 48))
    provenance = Provenance()

    def generate(self, image: Seed, camera_path: str | Path, *, num_frames: int, **_) -> VideoClip:
        pixels = image.image
        h, w = pixels.shape[:2]
        intrinsics = torch.tensor([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], dtype=torch.float64)
        pose = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
        pose[:, 2, 3] = -torch.linspace(0, 0.5, num_frames)
        cameras = CameraPath(
            world_to_cam=pose,
            intrinsics=intrinsics.repeat(num_frames, 1, 1),
            image_height=h,
            image_width=w,
            name=str(camera_path),
        )
        return VideoClip(frames=pixels[None].expand(num_frames, -1, -1, -1), cameras=cameras)

    def reconstruct(self, clip: VideoClip, **_) -> Gaussians:
        across, ahead = torch.meshgrid(torch.arange(-4, 4, SPACING), torch.arange(0.5, 9, SPACING), indexing="ij")
        across, ahead = across.flatten(), ahead.flatten()
        is_wall = clip.cameras.name == "pan-left"
        level = torch.stack([across, torch.full_like(across, 1.2), ahead], 1)
        upright = torch.stack([across, ahead - 4.5, torch.full_like(across, 3.0)], 1)
        thin = torch.tensor([[0.7, 0.7, 0.05]] if is_wall else [[0.7, 0.05, 0.7]])
        surface = self._splats(upright if is_wall else level, SPACING * thin).marked(Part.KEYFRAME)
        far = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
        return Gaussians.concatenate([surface, self._splats(100 * far, torch.full((1, 3), 5.0)).marked(Part.DOME)])

    @staticmethod
    def _splats(means: torch.Tensor, scales: torch.Tensor) -> Gaussians:
        count = len(means)
        return Gaussians(
            means=means,
            quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            scales=scales.expand(count, 3).clone(),
            opacities=torch.full((count,), 0.99),
            sh=torch.zeros(count, 1, 3),
        )


def load(*, device: str = "cpu") -> YardModel:
    """As tasks call it."""
    return YardModel()
