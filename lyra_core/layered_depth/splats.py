"""Layers as 3D Gaussians: one flat splat per sample, along the surface."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.layered_depth.depth import SKY_DEPTH_M
from lyra_core.layered_depth.layers import Layers, Samples
from lyra_core.values import Gaussians, Part

# Standard deviation in units of the distance between samples: sharp where the photograph is, closed elsewhere.
SIGMAS = {"seen": 0.36, "behind": 0.65, "backstop": 0.65, "around": 0.65, "dome": 0.65}
PARTS = {
    "seen": Part.KEYFRAME,
    "behind": Part.BACKING,
    "backstop": Part.BACKING,
    "around": Part.BACKING,
    "dome": Part.DOME,
}
THICKNESS = 0.15  # of a splat across its surface, relative to its smaller extent
SH_C0 = 0.28209479177387814


def layer_splats(layers: Layers, world_to_cam: Float[Tensor, "4 4"], names: tuple[str, ...]) -> Gaussians:
    """Gaussians of some layers in the world frame, not sharpened; what the photograph shows of the sky is dome.

    Args:
        layers: of a photograph.
        world_to_cam: the photograph's camera. [4 4]
        names: of the layers, see SIGMAS.
    """
    return Gaussians.concatenate([_layer(getattr(layers, name), world_to_cam, name) for name in names])


def _layer(samples: Samples, world_to_cam: Tensor, name: str) -> Gaussians:
    made = _splats(samples, world_to_cam, SIGMAS[name]).marked(PARTS[name])
    if name != "seen":
        return made
    is_sky = samples.distance_m >= SKY_DEPTH_M
    return replace(made, part=torch.where(is_sky, int(Part.DOME), int(Part.KEYFRAME)).to(torch.uint8))


def _splats(samples: Samples, world_to_cam: Tensor, sigma: float) -> Gaussians:
    rotation = world_to_cam[:3, :3].T.float()
    center = -(rotation.double() @ world_to_cam[:3, 3].double()).float()
    first = torch.nn.functional.normalize(samples.axis_u, dim=1)
    along = (samples.axis_v * first).sum(1, keepdim=True)
    across = samples.axis_v - along * first
    second = torch.nn.functional.normalize(across, dim=1)
    axes = torch.stack([first, second, torch.linalg.cross(first, second)], 2)
    length_u = samples.axis_u.norm(dim=1)
    length_v = across.norm(dim=1)
    scales = sigma * torch.stack([length_u, length_v, THICKNESS * torch.minimum(length_u, length_v)], 1)
    return Gaussians(
        means=samples.rays * samples.distance_m[:, None] @ rotation.T + center,
        quats=quats_of(rotation @ axes),
        scales=scales.clamp(min=1e-6),
        opacities=samples.opacity,
        sh=((samples.color - 0.5) / SH_C0)[:, None, :],
    )


def quats_of(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions wxyz of rotation matrices, by the largest of the four components (Shepperd 1978)."""
    m = rotations
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], 1)
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    table = torch.stack(
        [
            torch.stack([squares[:, 0], wx, wy, wz], 1),
            torch.stack([wx, squares[:, 1], xy, xz], 1),
            torch.stack([wy, xy, squares[:, 2], yz], 1),
            torch.stack([wz, xz, yz, squares[:, 3]], 1),
        ],
        1,
    )
    best = table[torch.arange(len(m)), squares.argmax(1)]
    return torch.nn.functional.normalize(best, dim=1)
