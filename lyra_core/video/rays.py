"""Tells the video model where each latent frame's camera stands: a centre and a viewing direction for every pixel.

Six channels a pixel, (camera centre, unit direction), both in the frame of the last camera of the history. This is no
Pluecker line (no moment) although the literature around Lyra 2 uses the name. Metric units of the camera path, no
normalisation.

Legend: t cameras, h w pixels, c channels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import FrameError


def relative_cameras(
    world_to_cam: Float[Tensor, "t 4 4"], reference_world_to_cam: Float[Tensor, "4 4"]
) -> Float[Tensor, "t 4 4"]:
    """Camera-to-reference transforms: where each camera stands in the frame of the reference camera, float32."""
    cam_to_world = torch.linalg.inv(world_to_cam.float())
    return torch.matmul(reference_world_to_cam.float(), cam_to_world)


def camera_rays(
    cam_to_reference: Float[Tensor, "*t 4 4"],
    intrinsics: Float[Tensor, "*t 3 3"],
    height: int,
    width: int,
) -> Float[Tensor, "*t h w 6"]:
    """Centre and unit direction of each pixel's ray, in the reference frame.

    Args:
        cam_to_reference: see `relative_cameras`.
        intrinsics: pixels; pixel centres at +0.5 here (unlike in the warp, and as the released weights expect).
        height: rows.
        width: columns.
    """
    device = cam_to_reference.device
    x = torch.arange(width, dtype=torch.float32, device=device) + 0.5
    y = torch.arange(height, dtype=torch.float32, device=device) + 0.5
    fx, fy, cx, cy = (intrinsics[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    column, row = ((x - cx) / fx)[..., None, :], ((y - cy) / fy)[..., :, None]
    shape = (*cam_to_reference.shape[:-2], height, width)
    direction = torch.stack([column.expand(shape), row.expand(shape), torch.ones(shape, device=device)], dim=-1)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    rotated = torch.einsum("...ij,...hwj->...hwi", cam_to_reference[..., :3, :3], direction)
    center = cam_to_reference[..., None, None, :3, 3].expand(*shape, 3)
    return torch.cat([center, rotated], dim=-1)


def latent_cells(maps: Float[Tensor, "c t h w"], cell: int) -> Float[Tensor, "c2 t rows columns"]:
    """Move each cell x cell block of pixels into channels, in the order (channel, row, column).

    Raises:
        FrameError: the image is not a whole number of cells.
    """
    height, width = maps.shape[-2:]
    if height % cell or width % cell:
        raise FrameError(f"images must be multiples of {cell} pixels on both axes, found {width}x{height}")
    return rearrange(maps, "c t (h p) (w q) -> (c p q) t h w", p=cell, q=cell)


def ray_channels(
    world_to_cam: Float[Tensor, "t 4 4"],
    intrinsics: Float[Tensor, "t 3 3"],
    reference_world_to_cam: Float[Tensor, "4 4"],
    image_size: tuple[int, int],
    *,
    latent_stride: int = 8,
    downsample: int = 1,
) -> Float[Tensor, "c t rows columns"]:
    """Ray maps on the latent grid.

    Args:
        world_to_cam: cameras of the slots.
        intrinsics: theirs, for images of `image_size`.
        reference_world_to_cam: the last history camera.
        image_size: rows and columns, pixels.
        latent_stride: pixels a latent pixel spans.
        downsample: pixels a ray stands for; 1 gives 6 * 64 = 384 channels at stride 8.

    Raises:
        FrameError: the image is not a whole number of latent pixels.
    """
    scale = torch.tensor([1.0 / downsample] * 2 + [1.0], device=intrinsics.device)[:, None]
    rays = camera_rays(
        relative_cameras(world_to_cam, reference_world_to_cam),
        intrinsics.float() * scale,
        image_size[0] // downsample,
        image_size[1] // downsample,
    )
    return latent_cells(rearrange(rays, "t h w c -> c t h w"), latent_stride // downsample)
