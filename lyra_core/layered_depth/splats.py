"""Layers as 3D Gaussians: one flat splat per sample, along the surface."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.geometry.rotation import matrix_to_quat
from lyra_core.layered_depth.depth import SKY_DEPTH_M
from lyra_core.layered_depth.layers import Layers, LayerSamples
from lyra_core.spherical_harmonics import SH_C0
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


def layer_splats(layers: Layers, world_to_cam: Float[Tensor, "4 4"], names: tuple[str, ...]) -> Gaussians:
    """Gaussians of some layers in the world frame, not sharpened; what the photograph shows of the sky is dome.

    Args:
        layers: of a photograph.
        world_to_cam: the photograph's camera. [4 4]
        names: of the layers, see SIGMAS.
    """
    return Gaussians.concatenate([_layer(getattr(layers, name), world_to_cam, name) for name in names])


def _layer(samples: LayerSamples, world_to_cam: Tensor, name: str) -> Gaussians:
    made = _splats(samples, world_to_cam, SIGMAS[name]).marked(PARTS[name])
    if name != "seen":
        return made
    is_sky = samples.distance_m >= SKY_DEPTH_M
    return replace(made, part=torch.where(is_sky, int(Part.DOME), int(Part.KEYFRAME)).to(torch.uint8))


def _splats(samples: LayerSamples, world_to_cam: Tensor, sigma: float) -> Gaussians:
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
        quats=matrix_to_quat(rotation @ axes, has_positive_w=False),
        scales=scales.clamp(min=1e-6),
        opacities=samples.opacity,
        sh=((samples.color - 0.5) / SH_C0)[:, None, :],
    )
