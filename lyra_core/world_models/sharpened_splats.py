"""A photograph's layers as 3D Gaussians, coloured to undo the blur of rendering."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.gaussians.rasterize import Rasterizer
from lyra_core.layered_depth.filters import local_max, local_min
from lyra_core.layered_depth.layers import Layers
from lyra_core.layered_depth.splats import SIGMAS, layer_splats
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians

SHARPENING_PASSES = 5
OVERSHOOT = 0.12  # how far a colour may leave the range of its neighbours, sRGB


def build_splats(
    layers: Layers, image: Float[Tensor, "h w 3"], world_to_cam: Float[Tensor, "4 4"], intrinsics: Float[Tensor, "3 3"]
) -> Gaussians:
    """Gaussians in the world frame that, drawn from the photograph's camera, show the photograph.

    Args:
        layers: of the photograph.
        image: sRGB, 0 to 1. [h w 3]
        world_to_cam: the photograph's camera. [4 4]
        intrinsics: pixels of the photograph. [3 3]
    """
    gaussians = layer_splats(layers, world_to_cam, tuple(SIGMAS))
    return _sharpen(gaussians, len(layers.seen.rays), image, world_to_cam, intrinsics)


def _sharpen(gaussians: Gaussians, num_seen: int, image: Tensor, world_to_cam: Tensor, intrinsics: Tensor) -> Gaussians:
    """Add to each seen splat what its pixel lacks, a few times (van Cittert 1931): splatting blurs, this undoes it."""
    height, width = image.shape[:2]
    sh = gaussians.sh.clone()
    # Colours stay near those around them, or outlines would ring when they move.
    low = torch.stack([local_min(c, 1) for c in image.unbind(2)], 2).reshape(num_seen, 3) - OVERSHOOT
    high = torch.stack([local_max(c, 1) for c in image.unbind(2)], 2).reshape(num_seen, 3) + OVERSHOOT
    for _ in range(SHARPENING_PASSES):
        drawn = Rasterizer(replace(gaussians, sh=sh)).draw(world_to_cam, intrinsics, height, width)
        missing = (image - drawn.color).reshape(num_seen, 3)
        color = torch.clamp(sh[:num_seen, 0] * SH_C0 + 0.5 + missing, low, high)
        sh[:num_seen, 0] = (color - 0.5) / SH_C0
    return replace(gaussians, sh=sh)
