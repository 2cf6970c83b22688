"""Warps a picture of full size to other cameras along depth known at low resolution.

    depth of the source -- forward splat --> inverse depth of the target's pixels (low resolution)
                                                  | enlarged: planes are linear in inverse depth
                                                  v
    coordinates in the source, one a full-size pixel -- sample, anti-aliased --> the picture as the target sees it

Splatting colours of full size would take ten times as long and leave specks between drifting pixels; this way every
covered pixel is sampled from the picture itself.

Legend: s sources, b targets (s divides b), h w pixels of low resolution, H W of full size, c channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.config.rollout import CORRECTED_WARP
from lyra_core.geometry.densify import densify
from lyra_core.geometry.gaps import close_gaps
from lyra_core.geometry.warp import WarpSource, forward_warp

if TYPE_CHECKING:
    from typing import Self

DENSITY = 2
GAP_PX = 8
EDGE = 0.15
"""Relative difference of inverse depth between neighbours beyond which they are taken for two surfaces."""
UNSURE = 0.5
"""Cover of pixels that only depth beside an edge speaks for."""
LEVELS = 3
"""Of the pictures' pyramids: a source up to four times as fine as the target."""
NEAREST_RATIO = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardWarp:
    """Where the pixels of target cameras lie in their sources.

    Attributes:
        inverse_depth: of the target's pixels as the source knows them, 1/m; 0 where it does not show them. [b h w]
        cover: 1 where the source shows the pixel, UNSURE beside an edge, 0 elsewhere. [b h w]
        matrix: target pixel (x, y, 1) to source pixel, homogeneous, of points infinitely far away. [b 3 3]
        offset: added to it, times inverse depth. [b 3]
        zoom: focal length of the source divided by the target's. [b]
    """

    inverse_depth: Float[Tensor, "b h w"]
    cover: Float[Tensor, "b h w"]
    matrix: Float[Tensor, "b 3 3"]
    offset: Float[Tensor, "b 3"]
    zoom: Float[Tensor, " b"]

    def __len__(self) -> int:
        return int(self.inverse_depth.shape[0])

    def __getitem__(self, which: Tensor | slice) -> Self:
        return type(self)(
            inverse_depth=self.inverse_depth[which],
            cover=self.cover[which],
            matrix=self.matrix[which],
            offset=self.offset[which],
            zoom=self.zoom[which],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePoints:
    """Coordinates in a source.

    Attributes:
        at: low-resolution pixels of the source, centres at +0.5. [b r q 2]
        ratio: source pixels that a target pixel covers along an axis, both of one resolution. [b r q]
    """

    at: Float[Tensor, "b r q 2"]
    ratio: Float[Tensor, "b r q"]


def backward_warp(
    depth_m: Float[Tensor, "s h w"],
    source_world_to_cam: Float[Tensor, "s 4 4"],
    source_intrinsics: Float[Tensor, "s 3 3"],
    target_world_to_cam: Float[Tensor, "b 4 4"],
    target_intrinsics: Float[Tensor, "b 3 3"],
) -> BackwardWarp:
    """Where targets find their pixels in sources.

    Args:
        depth_m: of the sources, 0 where unknown.
        source_world_to_cam: rigid, metres.
        source_intrinsics: pixels of low resolution, centres at +0.5.
        target_world_to_cam: of b / s consecutive targets of each source.
        target_intrinsics: likewise.

    Raises:
        FrameError: the number of sources does not divide the number of targets.
    """
    depth = depth_m.float()
    source = WarpSource(
        values=depth.new_zeros(len(depth), 1, 0, *depth.shape[1:]),
        depth_m=depth[:, None],
        world_to_cam=source_world_to_cam.float()[:, None],
        intrinsics=_integer_centres(source_intrinsics)[:, None],
    )
    targets = target_world_to_cam.float(), _integer_centres(target_intrinsics)
    sure = forward_warp(densify(source, DENSITY, CORRECTED_WARP), *targets, CORRECTED_WARP)
    deep = sure.depth_m
    _, deep, landed = close_gaps(deep[:, None], deep, sure.mask, GAP_PX)
    # what lies beside an edge of the depth map is believed only where nothing surer is known
    every = forward_warp(source, *targets, replace(CORRECTED_WARP, reliability_threshold=math.inf))
    inverse = torch.where(landed, 1 / deep.clamp(min=1e-6), torch.zeros_like(deep))
    inverse = torch.where(every.mask & ~landed, 1 / every.depth_m.clamp(min=1e-6), inverse)
    cover = torch.where(landed, 1.0, torch.where(every.mask, UNSURE, 0.0))
    each = len(target_world_to_cam) // len(depth)
    first = source_world_to_cam.double().repeat_interleave(each, 0)
    K = source_intrinsics.double().repeat_interleave(each, 0)
    relative = first @ torch.linalg.inv(target_world_to_cam.double())
    matrix = K @ relative[:, :3, :3] @ torch.linalg.inv(target_intrinsics.double())
    offset = (K @ relative[:, :3, 3:])[..., 0]
    zoom = K[:, 0, 0] / target_intrinsics[:, 0, 0].double()
    return BackwardWarp(
        inverse_depth=inverse,
        cover=cover.to(inverse),
        matrix=matrix.to(inverse),
        offset=offset.to(inverse),
        zoom=zoom.to(inverse),
    )


def _integer_centres(intrinsics: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
    """The same cameras in the convention of the forward warp."""
    moved = intrinsics.float().clone()
    moved[:, :2, 2] -= 0.5
    return moved


def sample_points(warp: BackwardWarp, factor: int, corner: tuple[int, int] = (0, 0)) -> SamplePoints:
    """Coordinates in the source for every pixel of a target enlarged by a factor.

    Args:
        warp: of whole targets, or of a part of them.
        factor: pixels along each side of a low-resolution pixel; 1 for low resolution.
        corner: row and column at which the part begins.
    """
    inverse = enlarged_inverse(warp.inverse_depth, factor)
    rows, columns = inverse.shape[1:]
    y = corner[0] + (torch.arange(rows, device=inverse.device) + 0.5) / factor
    x = corner[1] + (torch.arange(columns, device=inverse.device) + 0.5) / factor
    # the sum of a plane at infinity and the parallax: [b rows columns] each
    m, o = warp.matrix, warp.offset
    image = [
        m[:, i, 0, None, None] * x[None, None]
        + (m[:, i, 1, None] * y[None] + m[:, i, 2, None])[..., None]
        + o[:, i, None, None] * inverse
        for i in range(3)
    ]
    depth_ratio = image[2].clamp(min=NEAREST_RATIO)
    at = torch.stack([image[0] / depth_ratio, image[1] / depth_ratio], -1)
    # a surface k times as far from the source as from the target is k times as small in it
    return SamplePoints(at=at, ratio=warp.zoom[:, None, None] / depth_ratio)


def enlarged_inverse(inverse: Float[Tensor, "b h w"], factor: int) -> Float[Tensor, "b H W"]:
    """Inverse depth of full size: linear on surfaces, nearest where two meet; 0 stays where nothing is known."""
    if factor == 1:
        return inverse
    known = (inverse > 0).float()
    both = torch.stack([inverse, known], 1)
    smooth = functional.interpolate(both, scale_factor=float(factor), mode="bilinear", align_corners=False)
    sharp = torch.cat([both, is_edge(inverse)[:, None].float()], 1)
    near = functional.interpolate(sharp, scale_factor=float(factor), mode="nearest")
    mixed = torch.where(near[:, 2] > 0, near[:, 0], smooth[:, 0] / smooth[:, 1].clamp(min=1e-6))
    return torch.where(near[:, 1] > 0, mixed, torch.zeros_like(mixed))


def is_edge(inverse: Float[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels in whose neighbourhood two surfaces meet."""
    largest = functional.max_pool2d(inverse[:, None], 3, stride=1, padding=1)
    smallest = -functional.max_pool2d(torch.where(inverse > 0, -inverse, -torch.inf)[:, None], 3, stride=1, padding=1)
    return (largest > (1 + EDGE) * smallest)[:, 0]


def pyramid(pictures: Float[Tensor, "b c H W"]) -> list[Tensor]:
    """What pictures are sampled from: enlarged twice, bicubic, then reduced twice, then four times, box-filtered.

    Bilinear samples of the enlarged picture are about those that a cubic filter would take of the picture itself, at a
    quarter of the cost.
    """
    fine = functional.interpolate(pictures, scale_factor=2.0, mode="bicubic", align_corners=False)
    made = [fine, pictures]
    for _ in range(LEVELS - 1):
        made.append(functional.avg_pool2d(made[-1], 2))
    return [made[0], *made[2:]]


def sample(
    levels: Sequence[Float[Tensor, "b c _ _"]], where: SamplePoints, size: tuple[int, int]
) -> Float[Tensor, "b c r q"]:
    """Pictures at coordinates, bilinear in each level, linear between the two levels next to the ratio.

    Args:
        levels: of pyramid, as many as are wanted of them.
        where: coordinates and how finely they are spread.
        size: rows and columns of the source at low resolution.
    """
    height, width = size
    grid = torch.stack([where.at[..., 0] * (2 / width) - 1, where.at[..., 1] * (2 / height) - 1], -1)
    lod = torch.log2(where.ratio.clamp(min=1.0)).clamp(max=len(levels) - 1)[:, None]
    total: Tensor | None = None
    for level, picture in enumerate(levels):
        weight = (1 - (lod - level).abs()).clamp(min=0)
        sampled = functional.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
        total = sampled * weight if total is None else total + sampled * weight
    assert total is not None  # noqa: S101 - there is a finest level
    return total
