"""The plain rasteriser that the fast one is tested against: one Gaussian after the other, in float64."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.gaussians.rasterize import EPS2D_PX2, FAR_PLANE_M, NEAR_PLANE_M, Raster
from lyra_core.values import Gaussians

MIN_ALPHA = 1.0 / 255.0
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4


def sh_basis(directions: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """Real spherical harmonics in the sign convention of 3D Gaussian splatting (Kerbl et al. 2023).

    Written from the definition (associated Legendre functions with the Condon-Shortley phase, azimuth
    factors cos and sin), not from the polynomials that the fast kernel uses.

    Args:
        directions: unit vectors from the camera to the Gaussian, world frame. [n 3]
        degree: 0 to 3.
    """
    x, y, z = directions.double().unbind(1)
    azimuth = torch.atan2(y, x)
    sine = (1.0 - z * z).clamp(min=0.0).sqrt()
    columns = []
    for order in range(degree + 1):
        for m in range(-order, order + 1):
            legendre = _associated_legendre(order, abs(m), z, sine)
            norm = math.sqrt(
                (2 * order + 1) / (4 * math.pi) * math.factorial(order - abs(m)) / math.factorial(order + abs(m))
            )
            if m == 0:
                columns.append(norm * legendre)
            else:
                angle = torch.cos(m * azimuth) if m > 0 else torch.sin(-m * azimuth)
                columns.append(math.sqrt(2.0) * norm * legendre * angle)
    return torch.stack(columns, 1)


def _associated_legendre(order: int, m: int, z: Tensor, sine: Tensor) -> Tensor:
    """P_order^m(z) with the Condon-Shortley phase, by the upward recurrence in the order."""
    diagonal = torch.ones_like(z)
    for k in range(1, m + 1):
        diagonal = -(2 * k - 1) * sine * diagonal
    if order == m:
        return diagonal
    previous, current = diagonal, (2 * m + 1) * z * diagonal
    for k in range(m + 2, order + 1):
        previous, current = current, ((2 * k - 1) * z * current - (k + m - 1) * previous) / (k - m)
    return current


def rotation_matrices(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions wxyz, which need not be of unit length."""
    w, x, y, z = torch.nn.functional.normalize(quats.double(), dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)


def rasterize_reference(
    gaussians: Gaussians,
    world_to_cam: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    image_height: int,
    image_width: int,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Raster:
    """The same picture as `rasterize`, slowly: every Gaussian is tried on every pixel."""
    w2c, K = world_to_cam.double(), intrinsics.double()
    means = gaussians.means.double() @ w2c[:3, :3].T + w2c[:3, 3]
    center = -w2c[:3, :3].T @ w2c[:3, 3]
    directions = torch.nn.functional.normalize(gaussians.means.double() - center, dim=1)
    basis = sh_basis(directions, gaussians.sh_degree)
    colors = (0.5 + torch.einsum("nk,nkc->nc", basis, gaussians.sh.double())).clamp(min=0.0)
    factors = rotation_matrices(gaussians.quats) * gaussians.scales.double()[:, None, :]
    covariances = w2c[:3, :3] @ factors @ factors.mT @ w2c[:3, :3].T

    grid_y, grid_x = torch.meshgrid(
        torch.arange(image_height).double() + 0.5,
        torch.arange(image_width).double() + 0.5,
        indexing="ij",
    )
    transmittance = torch.ones(image_height, image_width, dtype=torch.float64)
    stopped = torch.zeros(image_height, image_width, dtype=torch.bool)
    color = torch.zeros(image_height, image_width, 3, dtype=torch.float64)
    depth = torch.zeros(image_height, image_width, dtype=torch.float64)
    for i in torch.argsort(means[:, 2], stable=True).tolist():
        z = float(means[i, 2])
        if not NEAR_PLANE_M <= z <= FAR_PLANE_M:
            continue
        mean, conic = _project(means[i], covariances[i], K, image_height, image_width)
        dx, dy = mean[0] - grid_x, mean[1] - grid_y
        sigma = 0.5 * (conic[0, 0] * dx * dx + conic[1, 1] * dy * dy) + conic[0, 1] * dx * dy
        alpha = (gaussians.opacities[i].double() * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
        drawn = (alpha >= MIN_ALPHA) & ~stopped
        remaining = transmittance * (1.0 - alpha)
        stopped |= drawn & (remaining <= MIN_TRANSMITTANCE)
        weight = torch.where(drawn & ~stopped, alpha * transmittance, 0.0)
        transmittance = transmittance - weight
        color += weight[..., None] * colors[i]
        depth += weight * z
    covered = 1.0 - transmittance
    color = color + transmittance[..., None] * torch.tensor(background, dtype=torch.float64)
    return Raster(
        color=color.float(),
        depth_m=(depth / covered.clamp(min=1e-10)).float(),
        alpha=covered.float(),
    )


def _project(mean: Tensor, covariance: Tensor, K: Tensor, image_height: int, image_width: int) -> tuple[Tensor, Tensor]:
    """Centre in pixels and conic of one Gaussian in camera space (Zwicker et al. 2001, section 6)."""
    x, y, z = mean.tolist()
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    # The Jacobian is taken at most 15 % of the picture outside of it, or far-off splats would smear across.
    margin_x, margin_y = 0.15 * image_width / fx, 0.15 * image_height / fy
    tx = z * min(max(x / z, -cx / fx - margin_x), (image_width - cx) / fx + margin_x)
    ty = z * min(max(y / z, -cy / fy - margin_y), (image_height - cy) / fy + margin_y)
    jacobian = torch.tensor([[fx / z, 0.0, -fx * tx / z**2], [0.0, fy / z, -fy * ty / z**2]], dtype=torch.float64)
    covariance_2d = jacobian @ covariance @ jacobian.T + EPS2D_PX2 * torch.eye(2, dtype=torch.float64)
    return torch.tensor([fx * x / z + cx, fy * y / z + cy]), torch.linalg.inv(covariance_2d)
