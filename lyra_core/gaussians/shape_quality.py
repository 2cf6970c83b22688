"""What is wrong with Gaussians by themselves: needles, and pieces that hang alone in the air.

Shape legend: n Gaussians.
"""

from __future__ import annotations

import math

import torch

from lyra_core.values import Gaussians, Part

# A Gaussian is a needle where its longest axis is this many times the next one; the surfels of a pixel have 1 to 3.
NEEDLE_RATIO = 10.0
VISIBLE_OPACITY = 0.1
NEIGHBOURS, ISOLATED_RATIO = 4, 5.0
MAX_ASKED, MAX_OTHERS = 1_500, 10_000


def needle_frac(gaussians: Gaussians) -> float:
    """Share of visible Gaussians that are needles; NaN where none is visible."""
    scales = gaussians.scales[gaussians.opacities >= VISIBLE_OPACITY].double()
    scales = scales[torch.isfinite(scales).all(1)].sort(dim=1, descending=True).values
    if len(scales) == 0:
        return math.nan
    return float((scales[:, 0] > NEEDLE_RATIO * scales[:, 1].clamp_min(1e-30)).double().mean())


def isolated_frac(gaussians: Gaussians) -> float:
    """Share of visible Gaussians of key frames with no company: floaters that need no depth to be seen.

    The distance to the fourth neighbour, over the distance from the first camera, is compared with its median; five
    times that is alone. Of a large scene an even sample is asked. NaN where there are fewer than five.
    """
    surface = gaussians.of_parts(Part.KEYFRAME)
    means = surface.means[surface.opacities >= VISIBLE_OPACITY].double().cpu()
    means = means[torch.isfinite(means).all(1)]
    means = means[:: max(1, math.ceil(len(means) / MAX_OTHERS))]
    if len(means) <= NEIGHBOURS:
        return math.nan
    asked = means[:: max(1, math.ceil(len(means) / MAX_ASKED))]
    spacing = torch.cat(
        [torch.cdist(block, means).topk(NEIGHBOURS + 1, largest=False).values[:, -1] for block in asked.split(500)]
    )
    relative = spacing / asked.norm(dim=1).clamp_min(1e-9)
    return float((relative > ISOLATED_RATIO * relative.median()).double().mean())
