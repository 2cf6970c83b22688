"""Draw 3D Gaussians on a CPU: tile-based EWA splatting whose images agree with the CUDA rasteriser's.

Conventions of gsplat 1.5 'classic': low-pass of 0.3 px^2 added to the projected covariance, alpha at most
0.999, nothing under 1/255, a pixel stops at transmittance 1e-4, depth is the expected z-depth.
Sources: Kerbl et al. 2023 (3D Gaussian splatting), Zwicker et al. 2001 (EWA), Ye et al. 2025 (gsplat).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.gaussians import rasterize_kernels as kernels
from lyra_core.values import Gaussians

NEAR_PLANE_M = 0.01
FAR_PLANE_M = 1e10
EPS2D_PX2 = 0.3

# Numba's fallback threading layer aborts the process when two threads launch parallel kernels at once.
ONE_LAUNCH_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """One picture of Gaussians.

    Attributes:
        color: sRGB over the background, not clamped above 1. [h w 3] float32
        depth_m: expected z-depth of what was drawn, 0 where nothing was. [h w] float32
        alpha: share of the pixel covered, 0 to 1. [h w] float32
    """

    color: Float[Tensor, "h w 3"]
    depth_m: Float[Tensor, "h w"]
    alpha: Float[Tensor, "h w"]


def _contiguous(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())


class Rasterizer:
    """Gaussians made ready for drawing from many cameras; scratch memory is reused between pictures.

    Args:
        gaussians: in the world frame.
        eps2d: added to both variances of a projected Gaussian, pixels^2.
    """

    def __init__(self, gaussians: Gaussians, *, eps2d: float = EPS2D_PX2) -> None:
        self._arrays = tuple(
            _contiguous(t)
            for t in (
                gaussians.means,
                gaussians.quats,
                gaussians.scales,
                gaussians.opacities,
                gaussians.sh,
            )
        )
        self._eps2d = np.float32(eps2d)
        self._splats = np.empty((len(gaussians), kernels.SPLAT_WIDTH), np.float32)
        self._keys = np.empty(len(gaussians), np.uint32)

    def draw(
        self,
        world_to_cam: Float[Tensor, "4 4"],
        intrinsics: Float[Tensor, "3 3"],
        image_height: int,
        image_width: int,
        background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Raster:
        """One picture, equal bytes for equal arguments whatever the number of threads.

        Args:
            world_to_cam: world to OpenCV camera, metres. [4 4]
            intrinsics: pixels, pixel centres at +0.5. [3 3]
            image_height: rows.
            image_width: columns.
            background: sRGB behind everything.
        """
        camera = np.array(
            [
                float(intrinsics[0, 0]), float(intrinsics[1, 1]), float(intrinsics[0, 2]), float(intrinsics[1, 2]),
                image_width, image_height,
            ],
            np.float32,
        )  # fmt: skip
        tiles_x, tiles_y = -(-image_width // kernels.TILE), -(-image_height // kernels.TILE)
        color = np.empty((image_height, image_width, 3), np.float32)
        depth, alpha = np.empty((2, image_height, image_width), np.float32)
        limits = self._eps2d, np.float32(NEAR_PLANE_M), np.float32(FAR_PLANE_M)
        with ONE_LAUNCH_AT_A_TIME:
            kernels.project_splats(*self._arrays, _contiguous(world_to_cam), camera, *limits, self._splats, self._keys)
            ordered = kernels.gather(self._splats, kernels.depth_order(self._keys))
            starts, members = kernels.bin_into_tiles(ordered, tiles_x, tiles_y, numba.get_num_threads())
            kernels.composite(
                ordered,
                starts,
                members,
                tiles_x,
                tiles_y,
                np.array(background, np.float32),
                color,
                depth,
                alpha,
            )
        return Raster(
            color=torch.from_numpy(color),
            depth_m=torch.from_numpy(depth),
            alpha=torch.from_numpy(alpha),
        )


def rasterize(
    gaussians: Gaussians,
    world_to_cam: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    image_height: int,
    image_width: int,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Raster:
    """Draw once; for several cameras keep a `Rasterizer`. Arguments as in `Rasterizer.draw`."""
    return Rasterizer(gaussians).draw(world_to_cam, intrinsics, image_height, image_width, background)
