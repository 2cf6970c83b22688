"""Points between the pixels of a surface, so that a warp which brings it nearer leaves no holes in it.

Splatted pixels of a surface that comes nearer drift apart, and what lies behind shows through between them: of pixels
that a seed and frame 80 of a path share, 7 % got the depth of something behind. Between neighbours of one surface
colour is interpolated linearly and depth as planes have it, linearly in its inverse.

Legend: s sources, v views of a source, c channels, h w pixels, d density.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.config.rollout import WarpConfig
from lyra_core.geometry.warp import WarpSource, clean_depth, reliability_mask


def densify(source: WarpSource, density: int, config: WarpConfig) -> WarpSource:
    """A source with `density` points along each side of a pixel, as d*d views of it, each a fraction of a pixel beside.

    The first view is the source itself. The others carry only points whose neighbours (two or four pixels) are all
    reliable by the warp's own test.

    Args:
        source: what is to be warped.
        density: points along a side; 1 changes nothing.
        config: of the warp.

    Returns:
        A source with v * d * d views.
    """
    if density < 2:
        return source
    depth = clean_depth(source.depth_m)
    inverse = torch.where(depth > 0, 1.0 / depth.clamp(min=1e-6), torch.zeros_like(depth))
    trusted = reliability_mask(depth, config)
    if source.mask is not None:
        trusted = trusted & source.mask
    first = torch.ones_like(trusted) if source.mask is None else source.mask
    values, depths, intrinsics, masks = [source.values], [depth], [source.intrinsics], [first]
    for row in range(density):
        for column in range(density):
            if not row and not column:
                continue
            right, down = column / density, row / density
            values.append(_beside(source.values, right, down))
            depths.append(1.0 / _beside(inverse, right, down).clamp(min=1e-6))
            moved = source.intrinsics.clone()
            moved[..., 0, 2] -= right
            moved[..., 1, 2] -= down
            intrinsics.append(moved)
            masks.append(_all_near(trusted, right > 0, down > 0))
    return replace(
        source,
        values=torch.cat(values, 1),
        depth_m=torch.cat(depths, 1),
        world_to_cam=source.world_to_cam.repeat(1, density**2, 1, 1),
        intrinsics=torch.cat(intrinsics, 1),
        mask=torch.cat(masks, 1),
    )


def _beside(maps: Float[Tensor, "*k h w"], right: float, down: float) -> Float[Tensor, "*k h w"]:
    """Maps a fraction of a pixel to the right and further down, linear between pixels."""
    if right:
        maps = torch.lerp(maps, torch.cat([maps[..., 1:], maps[..., -1:]], -1), right)
    if down:
        maps = torch.lerp(maps, torch.cat([maps[..., 1:, :], maps[..., -1:, :]], -2), down)
    return maps


def _all_near(mask: Bool[Tensor, "*k h w"], is_right: bool, is_down: bool) -> Bool[Tensor, "*k h w"]:
    """Whether a pixel and those beside and below it that count are in a mask; beyond the border nothing is."""
    if is_right:
        mask = mask & torch.cat([mask[..., 1:], torch.zeros_like(mask[..., -1:])], -1)
    if is_down:
        mask = mask & torch.cat([mask[..., 1:, :], torch.zeros_like(mask[..., -1:, :])], -2)
    return mask
