"""A world model of your own in a batch: the photograph on a wall two metres away, as one Gaussian per pixel.

LYRA_MODEL_PATH=examples lyra run photos/ --ray off --recipe custom_model:recipe
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lyra_core.formats.image import open_image
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera import unproject
from lyra_core.geometry.seed_cameras import cameras_for_seed
from lyra_core.native import Native
from lyra_core.provenance import Provenance
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians, Seed, VideoClip
from tasks.recipe import Recipe

WALL_M = 2.0


class WallModel:
    """What the factory asks of a model: `lyra_core.world_models.protocol.WorldModel`."""

    name, weights_digest = "wall", "1"
    native, provenance = Native(size=(128, 80)), Provenance()

    def generate(self, image: Seed | str, camera_path: str, *, num_frames: int = 81, **_: object) -> VideoClip:
        """A video of the wall along the path, whose first camera took the photograph."""
        seed = image if isinstance(image, Seed) else open_image(image, *self.native.size)
        depth_m = torch.full(seed.image.shape[:2], WALL_M)
        lens, sky = seed.intrinsics, depth_m < 0
        cameras = cameras_for_seed(camera_path, num_frames=num_frames, intrinsics=lens, depth_m=depth_m, sky=sky)
        clip = VideoClip(frames=seed.image.expand(num_frames, -1, -1, -1), cameras=cameras)
        return replace(clip, frames=(render(self.reconstruct(clip), cameras).color * 255).byte())

    def reconstruct(self, clip: VideoClip, **_: object) -> Gaussians:
        """One Gaussian per pixel of the first frame, on the wall."""
        depth_m = torch.full(clip.frames.shape[1:3], WALL_M)
        means = unproject(depth_m, clip.cameras.world_to_cam[0], clip.cameras.intrinsics[0]).float().reshape(-1, 3)
        n, pixel_m = len(means), WALL_M / float(clip.cameras.intrinsics[0, 0, 0])
        quats, colors = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), clip.frames[0].reshape(n, 1, 3) / 255
        scales, opacities = torch.full((n, 3), 0.5 * pixel_m), torch.full((n,), 0.95)
        return Gaussians(means=means, quats=quats, scales=scales, opacities=opacities, sh=(colors - 0.5) / SH_C0)


def load(device: str = "cpu", **_: object) -> WallModel:  # noqa: ARG001  the wall is made on the CPU
    """The factory that `model` names; it gets the device and the recipe's choices."""
    return WallModel()


def recipe() -> Recipe:
    """Everything about a batch that changes its pixels; `--set width=160` changes one field."""
    return Recipe(name="wall", description="A wall.", model="custom_model:load", width=128, height=80, quality_views=1)
