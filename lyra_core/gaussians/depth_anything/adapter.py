"""From the Gaussian head's per-cell numbers to 3D Gaussians, exactly as the released weights were
trained.

Two habits of the training code are part of the weights and are kept: z-depth is applied along the
*unit* ray, and the quaternion's components are permuted before it is composed with the camera (the
stored rotation is therefore not R_camera * R_local unless the camera is the identity). Hence
Gaussians must be made with cameras in the frame of the network's reference view, and only then
moved to the world by a proper similarity (`to_world`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.depth_anything.gaussian_head import GaussianMaps
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.rotation import (
    invert_rigid,
    matrix_to_quat,
    matrix_to_quat_xyzw,
    multiply_quats,
    quat_xyzw_to_matrix,
)
from lyra_core.spherical_harmonics import rotate_sh
from lyra_core.values import Gaussians

SCALE_MIN = 1e-5
SCALE_MAX = 30.0
FOOTPRINT = 0.1  # a scale output of 1 is a tenth of the cell's two footprints together
SH_BANDS = (1.0, 0.1 * 0.25, 0.1 * 0.25**2)


def gaussians_from_maps(
    maps: GaussianMaps,
    world_to_cam: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 3 3"],
    image_height: int,
    image_width: int,
) -> Gaussians:
    """Gaussians in the frame of the network's reference view.

    Args:
        maps: the head's output, one cell for stride x stride pixels. [v a b ...]
        world_to_cam: cameras in the reference view's frame, in the depth's unit. [v 4 4]
        intrinsics: pixels of the full image. [v 3 3]
        image_height: rows of the full image.
        image_width: columns of it.

    Returns:
        one Gaussian for each cell, view by view, row by row.

    Raises:
        ReconstructionError: numbers of views that differ.
    """
    views, rows, cols = maps.depth.shape
    if not len(world_to_cam) == len(intrinsics) == views:
        raise ReconstructionError(
            f"{views} views of Gaussians need as many cameras, found {len(world_to_cam)} poses and "
            f"{len(intrinsics)} intrinsics"
        )
    cam_to_world = invert_rigid(world_to_cam.to(maps.raw), None)
    cell = intrinsics.new_tensor([[cols / image_width], [rows / image_height], [1.0]])
    cell_intrinsics = (intrinsics * cell).to(maps.raw)
    parts = [
        _one_view(maps.raw[i], maps.depth[i], maps.opacity[i], cam_to_world[i], cell_intrinsics[i])
        for i in range(views)
    ]
    return Gaussians.concatenate(parts)


def _one_view(raw: Tensor, depth: Tensor, opacity: Tensor, cam_to_world: Tensor, intrinsics: Tensor) -> Gaussians:
    rows, cols = depth.shape
    offset, scale_logits, quats, harmonics, depth_offset = raw.split([2, 3, 4, 27, 1], dim=-1)
    depth = (depth + depth_offset[..., 0])[..., None]
    y, x = torch.meshgrid(
        torch.arange(rows, device=raw.device) + 0.5,
        torch.arange(cols, device=raw.device) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x, y], dim=-1) + offset
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    rays = homogeneous @ torch.linalg.inv(intrinsics).mT
    rays = rays / rays.norm(dim=-1, keepdim=True)
    rotation = cam_to_world[:3, :3]
    means = cam_to_world[:3, 3] + (rays @ rotation.mT) * depth
    footprint = FOOTPRINT * (1.0 / intrinsics[0, 0] + 1.0 / intrinsics[1, 1])
    scales = (SCALE_MIN + (SCALE_MAX - SCALE_MIN) * scale_logits.sigmoid()) * depth * footprint
    sh = rearrange(harmonics, "a b (colour k) -> (a b) k colour", colour=3)
    sh = sh * torch.repeat_interleave(sh.new_tensor(SH_BANDS), sh.new_tensor([1, 3, 5]).long())[:, None]
    return Gaussians(
        means=means.reshape(-1, 3),
        quats=_trained_rotation(quats.reshape(-1, 4), rotation),
        scales=scales.reshape(-1, 3),
        opacities=opacity.reshape(-1),
        sh=rotate_sh(sh, rotation[None]),
    )


def _trained_rotation(quats: Tensor, rotation: Tensor) -> Tensor:
    # Read as (w, x, y, z) what was made as (x, y, z, w), and store xyzw where wxyz belongs: the
    # weights expect it.
    quats = quats / (quats.norm(dim=-1, keepdim=True) + 1e-8)
    local = quat_xyzw_to_matrix(quats.roll(1, dims=-1))
    return matrix_to_quat_xyzw(rotation @ local)


def to_world(gaussians: Gaussians, similarity: Similarity) -> Gaussians:
    """The same Gaussians after a similarity: centres, sizes, orientations and view-dependent
    colours all follow.
    """
    rotation = similarity.rotation.to(gaussians.means)
    quat = matrix_to_quat(similarity.rotation).to(gaussians.quats)
    return replace(
        gaussians,
        means=similarity.apply(gaussians.means),
        quats=multiply_quats(quat.expand_as(gaussians.quats), gaussians.quats),
        scales=gaussians.scales * similarity.scale,
        sh=rotate_sh(gaussians.sh, rotation[None]),
    )
