"""Fill what a photograph does not show: push-pull for the smooth part, texture mirrored from the known side."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra_core.jit import jit
from lyra_core.layered_depth.filters import box_mean


def push_pull(picture: Float[Tensor, "c h w"], known: Bool[Tensor, "h w"]) -> Float[Tensor, "c h w"]:
    """Replace unknown pixels by a smooth continuation of the known ones (Gortler et al. 1996, section 3.3).

    Known pixels are returned as they are; with none known the result is 0.
    """
    weight = known.float()[None, None]
    levels = [(picture[None] * weight, weight)]
    while max(levels[-1][1].shape[2:]) > 1:
        total, weight = levels[-1]
        # Sums of four children; weights saturate at one so that dense areas do not outvote.
        total, weight = (4 * F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (total, weight))
        clipped = weight.clamp(max=1.0)
        levels.append((total * (clipped / weight.clamp(min=1e-12)), clipped))
    total, weight = levels.pop()
    filled = total / weight.clamp(min=1e-12)
    while levels:
        total, weight = levels.pop()
        coarse = F.interpolate(filled, size=total.shape[2:], mode="bilinear", align_corners=False)
        filled = total + (1.0 - weight) * coarse
    return filled[0]


def nearest_known(known: Bool[Tensor, "h w"]) -> Int[Tensor, "h w 2"]:
    """Row and column of (nearly) the nearest known pixel, by vector propagation (Danielsson 1980)."""
    return torch.from_numpy(_propagate(np.ascontiguousarray(known.numpy())))


def fill(
    picture: Float[Tensor, "c h w"], known: Bool[Tensor, "h w"], *, texture: float = 1.0
) -> Float[Tensor, "c h w"]:
    """Push-pull plus the detail found when unknown pixels are mirrored at the nearest known one.

    Args:
        picture: any channels. [c h w]
        known: where the picture is to be believed. [h w]
        texture: share of the detail that is added.
    """
    height, width = known.shape
    smooth = push_pull(picture, known)
    radius = max(2, width // 100)
    weight = known.float()[None]
    local = box_mean(picture * weight, radius) / box_mean(weight, radius).clamp(min=1e-3)
    detail = (picture - local) * weight
    nearest = nearest_known(known)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    mirrored_row = (2 * nearest[..., 0] - rows).clamp(0, height - 1)
    mirrored_column = (2 * nearest[..., 1] - columns).clamp(0, width - 1)
    filled = smooth + texture * detail[:, mirrored_row, mirrored_column]
    return torch.where(known, picture, filled)


# A kernel carries no annotations: it is compiled, and its typed entrance is nearest_known.
@jit()
def _propagate(known):  # type: ignore[no-untyped-def]  # noqa: ANN001
    height, width = known.shape
    nearest = np.full((height, width, 2), -(1 << 20), np.int64)
    for y in range(height):
        for x in range(width):
            if known[y, x]:
                nearest[y, x, 0], nearest[y, x, 1] = y, x
    for sweep in range(2):
        step = 1 if sweep == 0 else -1
        for i in range(height):
            y = i if step == 1 else height - 1 - i
            for pass_x in range(2):
                for j in range(width):
                    x = j if pass_x == 0 else width - 1 - j
                    near_y, near_x = nearest[y, x, 0], nearest[y, x, 1]
                    best = (near_y - y) ** 2 + (near_x - x) ** 2
                    for side in range(4):
                        v = y - step if side < 3 else y
                        u = x + side - 1 if side < 3 else (x - 1 if pass_x == 0 else x + 1)
                        if 0 <= v < height and 0 <= u < width:
                            ny, nx = nearest[v, u, 0], nearest[v, u, 1]
                            distance = (ny - y) ** 2 + (nx - x) ** 2
                            if distance < best:
                                best = distance
                                nearest[y, x, 0], nearest[y, x, 1] = ny, nx
    return nearest
