"""A model that costs nothing, to time everything around it."""

from __future__ import annotations

import torch

from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip


class NoOpModel:
    name = "no-op"
    weights_digest = "1"

    def generate(self, image: Seed, camera_path, *, num_frames, seed, prompts=None, width, height, **_):
        h, w = image.image.shape[:2]
        return VideoClip(
            frames=image.image[None].expand(num_frames, -1, -1, -1),
            cameras=CameraPath(
                world_to_cam=torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1),
                intrinsics=image.intrinsics.repeat(num_frames, 1, 1),
                image_height=h,
                image_width=w,
                name="still",
            ),
        )

    def reconstruct(self, clip, **_):
        return Gaussians(
            means=torch.tensor([[0.0, 0.0, 2.0]]),
            quats=torch.tensor([[1.0, 0, 0, 0]]),
            scales=torch.full((1, 3), 0.1),
            opacities=torch.full((1,), 0.9),
            sh=torch.zeros(1, 1, 3),
        )


def load(device: str = "cpu", **options) -> NoOpModel:
    return NoOpModel(**options)
