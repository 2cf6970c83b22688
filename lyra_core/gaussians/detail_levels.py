"""Levels of detail of one world: the same scene in fewer Gaussians, and how much each level loses."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lyra_core.gaussians.render import render
from lyra_core.gaussians.tiers import make_tiers
from lyra_core.image_metrics import psnr_db
from lyra_core.values import CameraPath, Gaussians

SHARES = (1.0, 0.25, 0.06)
SAMPLE_VIEWS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailLevel:
    """One level.

    Attributes:
        share: of the world's Gaussians that it may have, 0 to 1.
        gaussians: world frame.
        psnr_db: its picture from the seed's camera against the one of all Gaussians; None of all of them.
    """

    share: float
    gaussians: Gaussians
    psnr_db: float | None


def make_detail_levels(
    gaussians: Gaussians, cameras: CameraPath, shares: tuple[float, ...] = SHARES
) -> list[DetailLevel]:
    """Levels from fine to coarse, by merging neighbours after what no sample view shows is left out.

    Args:
        gaussians: world frame.
        cameras: the video's, whose first is the seed's; some of them are the sample views.
        shares: rising loss; 1 is the world as it is.
    """
    views = cameras[torch.linspace(0, len(cameras) - 1, min(SAMPLE_VIEWS, len(cameras))).round().long()]
    whole = render(gaussians, cameras[:1]).color
    levels = []
    for share in shares:
        if share >= 1:
            levels.append(DetailLevel(share=share, gaussians=gaussians, psnr_db=None))
            continue
        count = max(1, int(share * len(gaussians)))
        reduced = make_tiers(gaussians, views, (count,))[count]
        loss = psnr_db(render(reduced, cameras[:1]).color, whole)
        levels.append(DetailLevel(share=share, gaussians=reduced, psnr_db=loss))
    return levels
