"""Levels of detail: fewer Gaussians, the parts they had, and a loss that is measured against the whole."""

from __future__ import annotations

import torch

from lyra_core.gaussians.detail_levels import make_detail_levels
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.values import CameraPath, Gaussians, Part


def test_coarser_levels_lose_more_and_say_how_much():
    across, down = torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(-1, 1, 60), indexing="ij")
    across, down = across.flatten(), down.flatten()
    count = len(across)
    wall = Gaussians(
        means=torch.stack([across, down, torch.full_like(across, 2.0)], 1),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        scales=torch.tensor([[0.02, 0.02, 0.002]]).repeat(count, 1),
        opacities=torch.full((count,), 0.95),
        sh=torch.stack([torch.sin(9 * across), torch.cos(7 * down), across * down], 1)[:, None],
        part=(across > 0).to(torch.uint8),
    )
    lens = torch.tensor([[40.0, 0, 32], [0, 40, 32], [0, 0, 1]], dtype=torch.float64)
    cameras = CameraPath(
        world_to_cam=torch.eye(4, dtype=torch.float64)[None], intrinsics=lens[None], image_height=64, image_width=64
    )
    whole, middle, coarse = make_detail_levels(wall, cameras)
    assert (whole.gaussians, whole.psnr_db) == (wall, None)
    assert len(coarse.gaussians) <= 0.06 * count < len(middle.gaussians) <= 0.25 * count
    assert 15 < coarse.psnr_db < middle.psnr_db < 60
    assert middle.psnr_db == psnr_db(render(middle.gaussians, cameras).color, render(wall, cameras).color)
    for level in (middle, coarse):  # no merged Gaussian has taken in both parts
        left = level.gaussians.of_parts(Part.KEYFRAME)
        assert 0.3 < len(left) / len(level.gaussians) < 0.7
        assert left.means[:, 0].max() <= 0
