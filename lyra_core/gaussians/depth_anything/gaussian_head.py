"""The head that reads one 3D Gaussian from each image cell, still in the camera's frame and without
depth.

Follows the giant release of Depth Anything 3 with the reduced grid that Lyra 2 trained it for:
cells of k x k pixels, the colour branch computed at full resolution and then averaged over each
cell. Shape legend: v views, n patches, c channels, h w pixels, a b cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.depth_anything.config import GAUSSIAN_CHANNELS, PATCH, HeadConfig
from lyra_core.gaussians.depth_anything.heads import (
    VIEWS_PER_SLICE,
    PyramidHead,
    add_uv,
    readout,
    slices,
    upsample,
)

DEPTH_OFFSET = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianMaps:
    """The Gaussian head's output with the depth it belongs to, in the camera's frame.

    Attributes:
        raw: pixel offset (2), scale logits (3), quaternion xyzw (4), degree-2 harmonics (3 colours
            x 9), depth offset (1). [v a b 37]
        opacity: 0 to 1. [v a b]
        depth: z-depth sampled at each cell's first pixel, as the weights were trained. [v a b]
    """

    raw: Float[Tensor, "v a b 37"]
    opacity: Float[Tensor, "v a b"]
    depth: Float[Tensor, "v a b"]

    def scaled(self, factor: float) -> GaussianMaps:
        """The same Gaussians in a scene `factor` times larger: depth and depth offset both grow."""
        gain = torch.ones(self.raw.shape[-1], device=self.raw.device)
        gain[DEPTH_OFFSET] = factor
        return replace(self, raw=self.raw * gain, depth=self.depth * factor)


class GaussianHead(PyramidHead):
    """A pyramid head that adds the image's own colours before the last convolutions."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__(dim, config, norm=False, uv=True)
        narrow = config.features // 2
        self.scratch["output_conv2"] = readout(narrow, GAUSSIAN_CHANNELS)
        self.images_merger = nn.Sequential(
            nn.Conv2d(3, narrow // 4, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(narrow // 4, narrow // 2, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(narrow // 2, narrow, 3, padding=1),
            nn.GELU(),
        )

    def forward(
        self,
        levels: Sequence[Float[Tensor, "v n c"]],
        images: Float[Tensor, "v 3 h w"],
        depth: Float[Tensor, "v h w"],
        *,
        stride: int = 2,
        views_per_slice: int = VIEWS_PER_SLICE,
    ) -> GaussianMaps:
        """Predict, a slice of views at a time.

        Args:
            levels: the backbone's four levels. 4 x [v n c]
            images: the normalised images the backbone saw. [v 3 h w]
            depth: the dense head's depth. [v h w]
            stride: k, the side of a cell in pixels; 1 gives a Gaussian for each pixel.
            views_per_slice: views computed at once.

        Raises:
            ReconstructionError: a stride that does not divide the image.
        """
        height, width = images.shape[2:]
        if stride < 1 or height % stride or width % stride:
            raise ReconstructionError(
                f"the Gaussian stride must divide the {width}x{height} image, found {stride}; use 1, 2, 7 or 14"
            )
        rows, cols = height // PATCH, width // PATCH
        raw, opacity = [], []
        for part, level in slices(levels, views_per_slice):
            cells = (height // stride, width // stride)
            x = upsample(self.scratch["output_conv1"](self.fuse(self.pyramid(level, rows, cols))), cells)
            colour = self.images_merger(images[part].float())
            x = x + (colour if stride == 1 else functional.avg_pool2d(colour, stride))
            logits = rearrange(self.scratch["output_conv2"](add_uv(x, cols / rows)), "v c h w -> v h w c")
            raw.append(logits[..., :-1])
            opacity.append(logits[..., -1].sigmoid())
        return GaussianMaps(
            raw=torch.cat(raw),
            opacity=torch.cat(opacity),
            depth=depth[:, ::stride, ::stride].float(),
        )
