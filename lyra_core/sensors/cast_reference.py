"""The plain ray caster that the fast one is compared with: every Gaussian on every ray, in float64.

Written from covariances and their inverses rather than from scaled axes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.gaussians.rasterize_reference import MAX_ALPHA, MIN_ALPHA, rotation_matrices, sh_basis
from lyra_core.geometry.rotation import invert_rigid
from lyra_core.sensors.cast import blurred_scales
from lyra_core.values import Gaussians


def cast_reference(
    gaussians: Gaussians, rays: Float[Tensor, "r 3"], pitch_rad: float, world_to_cam: Float[Tensor, "4 4"]
) -> tuple[Float[Tensor, "r 3"], Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Colour, distance to the surface (0 where there is none; the dome counts as one) and cover of some rays.

    Args:
        gaussians: world frame.
        rays: unit directions in the sensor's frame. [r 3]
        pitch_rad: angle between neighbouring rays, radians.
        world_to_cam: pose of the sensor. [4 4]
    """
    pose = invert_rigid(world_to_cam.double())
    offsets = gaussians.means.double() - pose[:3, 3]
    distance = offsets.norm(dim=1)
    rotation = rotation_matrices(gaussians.quats)
    sharp = _inverse_covariances(rotation, gaussians.scales.double())
    blurred_s = blurred_scales(gaussians.scales.double(), distance, pitch_rad)
    blurred = _inverse_covariances(rotation, blurred_s)
    basis = sh_basis(torch.nn.functional.normalize(offsets, dim=1), gaussians.sh_degree)
    colors = (0.5 + torch.einsum("nk,nkc->nc", basis, gaussians.sh.double())).clamp_min(0.0)
    reach = (2 * torch.log(255 * gaussians.opacities.double())).clamp_min(0).sqrt() * blurred_s.amax(1)
    found = [
        _one_ray(ray, offsets, sharp, blurred, colors, gaussians.opacities.double(), distance - reach, distance + reach)
        for ray in rays.double() @ pose[:3, :3].mT
    ]
    return (
        torch.stack([c for c, _, _ in found]),
        torch.stack([t for _, t, _ in found]),
        torch.stack([a for _, _, a in found]),
    )


def _inverse_covariances(rotation: Tensor, scales: Tensor) -> Tensor:
    return torch.linalg.inv((rotation * (scales * scales)[:, None, :]) @ rotation.mT)


def _one_ray(
    ray: Tensor,
    offsets: Tensor,
    sharp: Tensor,
    blurred: Tensor,
    colors: Tensor,
    opacities: Tensor,
    near: Tensor,
    far: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    # The point of the ray with the least Mahalanobis distance: d/dt (t ray - offset)^T A (t ray - offset) = 0.
    along = _form(ray, blurred, offsets) / _form(ray, blurred, ray)
    miss = along[:, None] * ray - offsets
    alpha = (opacities * torch.exp(-0.5 * _form(miss, blurred, miss))).clamp(max=MAX_ALPHA)
    t = _form(ray, sharp, offsets) / _form(ray, sharp, ray)
    met = ((alpha >= MIN_ALPHA) & (t > 0)).nonzero()[:, 0]
    # A flat Gaussian seen edge on is not met further away than it reaches.
    t = torch.minimum(torch.maximum(t, near.clamp_min(0.0)), far)
    met = met[torch.argsort(t[met], stable=True)]
    left = torch.cumprod(1.0 - alpha[met], 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), left])[:-1]
    color = ((alpha[met] * before)[:, None] * colors[met]).sum(0)
    crossed = (left <= 0.5).nonzero()
    surface = t[met[crossed[0, 0]]] if len(crossed) else torch.zeros((), dtype=torch.float64)
    return color, surface, 1.0 - (left[-1] if len(left) else torch.ones((), dtype=torch.float64))


def _form(a: Tensor, matrix: Tensor, b: Tensor) -> Tensor:
    left = a.expand(len(matrix), 3)
    return torch.einsum("ni,nij,nj->n", left, matrix, b.expand(len(matrix), 3))
