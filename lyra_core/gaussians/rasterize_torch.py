"""A rasteriser that torch can differentiate, for a few hundred Gaussians and small pictures: the refinement loop's CPU
engine, and what gradients of faster engines can be compared with.

Same picture as the plain reference except that a pixel is never stopped early (a difference below 1e-4).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import RecipeError
from lyra_core.gaussians.rasterize import EPS2D_PX2, NEAR_PLANE_M, Raster
from lyra_core.gaussians.rasterize_reference import MAX_ALPHA, MIN_ALPHA, rotation_matrices, sh_basis
from lyra_core.values import Gaussians

# The whole matrix of Gaussians times pixels is alive for the backward pass, several times.
MAX_PAIRS = 20_000_000


def rasterize_torch(
    gaussians: Gaussians,
    world_to_cam: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    image_height: int,
    image_width: int,
) -> Raster:
    """One picture over black, with gradients to every layer of the Gaussians and to the camera.

    Args:
        gaussians: world frame.
        world_to_cam: [4 4]
        intrinsics: pixels, centres at +0.5. [3 3]
        image_height: rows.
        image_width: columns.

    Raises:
        RecipeError: more pairs of Gaussians and pixels than memory should hold.
    """
    pixels = image_height * image_width
    if len(gaussians) * pixels > MAX_PAIRS:
        raise RecipeError(
            f"the differentiable CPU rasteriser holds {MAX_PAIRS} pairs of Gaussians and pixels, asked for "
            f"{len(gaussians)} x {pixels}; use gsplat on a GPU"
        )
    w2c, K = world_to_cam.double(), intrinsics.double()
    local = gaussians.means.double() @ w2c[:3, :3].mT + w2c[:3, 3]
    visible = (local[:, 2] >= NEAR_PLANE_M).nonzero()[:, 0]
    visible = visible[torch.argsort(local[visible, 2].detach(), stable=True)]
    shown, local = gaussians[visible], local[visible]
    center = -w2c[:3, :3].mT @ w2c[:3, 3]
    directions = torch.nn.functional.normalize(shown.means.double() - center, dim=1)
    # The basis is a constant of the step: how colours turn with the camera matters little to where things are.
    basis = sh_basis(directions.detach(), shown.sh_degree)
    colors = (0.5 + torch.einsum("nk,nkc->nc", basis, shown.sh.double())).clamp_min(0.0)
    offsets, conics = _project(shown, local, w2c, K, image_height, image_width)
    dx, dy = offsets[..., 0], offsets[..., 1]
    sigma = 0.5 * (conics[:, 0, 0, None] * dx * dx + conics[:, 1, 1, None] * dy * dy) + conics[:, 0, 1, None] * dx * dy
    alpha = (shown.opacities.double()[:, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    remaining = torch.cumprod(1.0 - alpha, dim=0)
    before = torch.cat([torch.ones_like(remaining[:1]), remaining[:-1]])
    weight = alpha * before
    covered = weight.sum(0)
    shape = (image_height, image_width)
    return Raster(
        color=(weight.mT @ colors).reshape(*shape, 3).float(),
        depth_m=((weight * local[:, 2:3]).sum(0) / covered.clamp_min(1e-10)).reshape(shape).float(),
        alpha=covered.reshape(shape).float(),
    )


def _project(shown: Gaussians, local: Tensor, w2c: Tensor, K: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Offsets of centres from all pixels [n p 2] and conics [n 2 2] (Zwicker et al. 2001, section 6)."""
    x, y, z = local.unbind(1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = z * (x / z).clamp(float(-cx / fx - margin_x), float((width - cx) / fx + margin_x))
    ty = z * (y / z).clamp(float(-cy / fy - margin_y), float((height - cy) / fy + margin_y))
    zero = torch.zeros_like(z)
    rows = [torch.stack([fx / z, zero, -fx * tx / z**2], 1), torch.stack([zero, fy / z, -fy * ty / z**2], 1)]
    factors = rotation_matrices(shown.quats) * shown.scales.double()[:, None, :]
    half = torch.stack(rows, 1) @ w2c[:3, :3] @ factors
    covariance = half @ half.mT + EPS2D_PX2 * torch.eye(2, dtype=torch.float64)
    grid_y, grid_x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) + 0.5, torch.arange(width, dtype=torch.float64) + 0.5, indexing="ij"
    )
    grid = torch.stack([grid_x.flatten(), grid_y.flatten()], 1)
    centers = torch.stack([fx * x / z + cx, fy * y / z + cy], 1)
    return centers[:, None] - grid[None], torch.linalg.inv(covariance)
