"""How much each Gaussian contributes to pictures, and what those pictures say about its colour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.gaussians import backproject_kernels
from lyra_core.gaussians import rasterize_kernels as kernels
from lyra_core.gaussians.rasterize import (
    EPS2D_PX2,
    FAR_PLANE_M,
    NEAR_PLANE_M,
    ONE_LAUNCH_AT_A_TIME,
    Rasterizer,
    _contiguous,
)
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import CameraPath, Gaussians

# Colours beyond these cannot be shown; a Gaussian seen by hardly any pixel keeps the colour it has.
COLOR_RANGE = (-0.05, 1.05)
MIN_WEIGHT = 0.05


class Backprojector:
    """Gathers pixel values at the Gaussians that drew the pixels; sums grow over the views given."""

    def __init__(self, gaussians: Gaussians) -> None:
        self._arrays = tuple(
            _contiguous(t)
            for t in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh[:, :1])
        )
        self._splats = np.empty((len(gaussians), kernels.SPLAT_WIDTH), np.float32)
        self._keys = np.empty(len(gaussians), np.uint32)
        self._totals = np.zeros((len(gaussians), 4), np.float64)

    def add(
        self,
        values: Float[Tensor, "h w 3"],
        world_to_cam: Float[Tensor, "4 4"],
        intrinsics: Float[Tensor, "3 3"],
    ) -> None:
        """One view's pixel values; equal bytes whatever the number of threads."""
        height, width = values.shape[:2]
        camera = np.array(
            [*(float(intrinsics[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))), width, height], np.float32
        )
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        limits = np.float32(EPS2D_PX2), np.float32(NEAR_PLANE_M), np.float32(FAR_PLANE_M)
        with ONE_LAUNCH_AT_A_TIME:
            kernels.project_splats(*self._arrays, _contiguous(world_to_cam), camera, *limits, self._splats, self._keys)
            order = kernels.depth_order(self._keys)
            ordered = kernels.gather(self._splats, order)
            starts, members = kernels.bin_into_tiles(ordered, tiles_x, tiles_y, numba.get_num_threads())
            backproject_kernels.backproject(
                ordered, order, starts, members, tiles_x, tiles_y, _contiguous(values), self._totals
            )

    @property
    def weight(self) -> Float[Tensor, " n"]:
        """Sum of alpha times transmittance over all pixels of all views: pixels' worth of picture. [n]"""
        return torch.from_numpy(self._totals[:, 0].astype(np.float32))

    @property
    def mean(self) -> Float[Tensor, "n 3"]:
        """Weighted mean of the values over the Gaussian's pixels, 0 where it drew nothing. [n 3]"""
        mean = self._totals[:, 1:] / np.maximum(self._totals[:, :1], 1e-12)
        return torch.from_numpy(mean.astype(np.float32))


def contributions(gaussians: Gaussians, cameras: CameraPath) -> Float[Tensor, " n"]:
    """Each Gaussian's share of the pictures from some cameras, in pixels: 0 for one that is never seen. [n]"""
    gatherer = Backprojector(gaussians)
    nothing = torch.zeros(cameras.image_height, cameras.image_width, 3)
    for w2c, K in zip(cameras.world_to_cam, cameras.intrinsics, strict=True):
        gatherer.add(nothing, w2c, K)
    return gatherer.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorFit:
    """One sweep of colour fitting.

    Attributes:
        gaussians: with other base colours.
        coverage: share of the frames' pixels that Gaussians drew, before the sweep, 0 to 1.
        psnr_db: of the pictures against the frames, before the sweep.
    """

    gaussians: Gaussians
    coverage: float
    psnr_db: float


def fit_colors(gaussians: Gaussians, frames: Iterable[Float[Tensor, "h w 3"]], cameras: CameraPath) -> ColorFit:
    """One step of fitting colours to frames: each Gaussian moves by the weighted mean of what its pixels lack.

    This is one sweep of simultaneous iterative reconstruction (Gilbert 1972; van Cittert's deconvolution where there
    is one view): splats blur, the sweep takes the blur back, and chunks of different exposure meet half way.
    All views count alike and the update comes after the last, so their order does not matter.

    Args:
        gaussians: world frame.
        frames: sRGB, 0 to 1, one a camera; taken one at a time.
        cameras: of the frames.
    """
    rasterizer, gatherer = Rasterizer(gaussians), Backprojector(gaussians)
    covered = squared = 0.0
    for frame, w2c, K in zip(frames, cameras.world_to_cam, cameras.intrinsics, strict=True):
        drawn = rasterizer.draw(w2c, K, *frame.shape[:2])
        gatherer.add(frame - drawn.color, w2c, K)
        covered += float((drawn.alpha > 0.5).double().mean())
        squared += float((frame - drawn.color.clamp(0.0, 1.0)).double().square().mean())
    sure = (gatherer.weight > MIN_WEIGHT)[:, None]
    color = 0.5 + SH_C0 * gaussians.sh[:, 0] + torch.where(sure, gatherer.mean, 0.0)
    sh = gaussians.sh.clone()
    sh[:, 0] = (color.clamp(*COLOR_RANGE) - 0.5) / SH_C0
    psnr = -10.0 * float(np.log10(max(squared / len(cameras), 1e-12)))
    return ColorFit(gaussians=replace(gaussians, sh=sh), coverage=covered / len(cameras), psnr_db=psnr)
