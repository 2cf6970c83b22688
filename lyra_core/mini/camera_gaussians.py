"""From the small network's numbers to Gaussians: one a pixel, a footprint that the network may change.

With all numbers 0 a Gaussian sits on its pixel's ray at the predicted depth, is round, half a footprint wide, nearly
opaque and has the pixel's colour. The network moves it from there.

Shape legend: v views, h w pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.geometry.rotation import matrix_to_quat, multiply_quats
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians

SIGMA = 0.55  # of a footprint
SCALE_REACH, COLOR_REACH, DEPTH_REACH = 2.0, 0.3, 0.1
OPACITY_LOGIT = 3.0


def camera_gaussians(
    raw: Float[Tensor, "v 12 h w"],
    depth_m: Float[Tensor, "v h w"],
    images: Float[Tensor, "v 3 h w"],
    intrinsics: Float[Tensor, "v 3 3"],
) -> Gaussians:
    """Gaussians of all pixels, each in the OpenCV frame of its own camera, view by view and row by row.

    Args:
        raw: the network's numbers.
        depth_m: z-depth; the Gaussians have its unit.
        images: sRGB in 0..1.
        intrinsics: pixels, centres at +0.5.
    """
    height, width = depth_m.shape[1:]
    log_scale, turn, opacity, color, nudge = raw.split([3, 4, 1, 3, 1], dim=1)
    z = depth_m * (DEPTH_REACH * torch.tanh(nudge[:, 0])).exp()
    K = intrinsics[:, :, :, None, None].to(raw)
    y = (torch.arange(height, device=raw.device) + 0.5)[:, None].expand(height, width)
    x = (torch.arange(width, device=raw.device) + 0.5).expand(height, width)
    rays = torch.stack([(x - K[:, 0, 2]) / K[:, 0, 0], (y - K[:, 1, 2]) / K[:, 1, 1], torch.ones_like(z)], dim=-1)
    footprint = SIGMA * z / K[:, 0, 0]
    scales = footprint[..., None] * (SCALE_REACH * torch.tanh(log_scale.permute(0, 2, 3, 1) / SCALE_REACH)).exp()
    upright = turn.permute(0, 2, 3, 1) + turn.new_tensor([1.0, 0.0, 0.0, 0.0])
    shown = images + COLOR_REACH * torch.tanh(color)
    return Gaussians(
        means=(rays * z[..., None]).reshape(-1, 3),
        quats=functional.normalize(upright.reshape(-1, 4), dim=1),
        scales=scales.reshape(-1, 3),
        opacities=(opacity[:, 0] + OPACITY_LOGIT).sigmoid().reshape(-1),
        sh=((shown.permute(0, 2, 3, 1).reshape(-1, 1, 3) - 0.5) / SH_C0),
    )


def world_gaussians(
    raw: Float[Tensor, "v 12 h w"],
    depth_m: Float[Tensor, "v h w"],
    images: Float[Tensor, "v 3 h w"],
    intrinsics: Float[Tensor, "v 3 3"],
    world_to_cam: Float[Tensor, "v 4 4"],
    wanted: Bool[Tensor, "v h w"] | None = None,
) -> Gaussians:
    """The same in the world frame of the cameras, of the wanted pixels only; gradients flow to depth and numbers."""
    local = camera_gaussians(raw, depth_m, images, intrinsics)
    count = depth_m[0].numel()
    rotation = world_to_cam[:, :3, :3].mT.to(raw)
    center = -(rotation @ world_to_cam[:, :3, 3:].to(raw))
    means = (local.means.unflatten(0, (-1, count)) @ rotation.mT + center.mT).flatten(0, 1)
    quats = multiply_quats(matrix_to_quat(rotation).repeat_interleave(count, 0), local.quats)
    made = Gaussians(means=means, quats=quats, scales=local.scales, opacities=local.opacities, sh=local.sh)
    return made if wanted is None else made[wanted.flatten()]
