"""Retrieval from many memories at once: what training asks thousands of times, without waiting for the device.

The same greedy coverage as `SpatialMemory.retrieve` (a test compares them); every world of the batch has stored the
same number of frames.

Legend: b worlds, n stored frames, v query cameras, h w pixels, q cells of a query.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra_core.config.rollout import MemoryConfig
from lyra_core.geometry.warp import EPSILON, project_integer, unproject_integer


def _scaled(intrinsics: Tensor, step: int) -> Tensor:
    return intrinsics * intrinsics.new_tensor([[1.0 / step], [1.0 / step], [1.0]])


def coverage(
    depth_m: Float[Tensor, "b n h w"],
    world_to_cam: Float[Tensor, "b n 4 4"],
    intrinsics: Float[Tensor, "b n 3 3"],
    query_world_to_cam: Float[Tensor, "b v 4 4"],
    query_intrinsics: Float[Tensor, "b v 3 3"],
    config: MemoryConfig,
) -> Bool[Tensor, "b n q"]:
    """Cells of the query views that each stored frame shows on the visible surface."""
    step = config.downsample
    grid = depth_m[:, :, ::step, ::step]
    b, n, rows, columns = grid.shape
    points = unproject_integer(grid, world_to_cam, _scaled(intrinsics, step))
    image = project_integer(
        points[:, None], query_world_to_cam[:, :, None], _scaled(query_intrinsics, step)[:, :, None]
    )
    depth = image[..., 2]
    column = torch.round(image[..., 0] / (depth + EPSILON))
    row = torch.round(image[..., 1] / (depth + EPSILON))
    inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < columns) & (row < rows)
    if not config.invalid_at_origin:
        inside = inside & (grid > 0)[:, None]
    cells = torch.where(inside, row * columns + column, torch.full_like(depth, rows * columns)).long().flatten(3)
    depth = depth.flatten(3)
    views = cells.shape[1]
    nearest = depth.new_full((b, views, rows * columns + 1), float("inf"))
    nearest = nearest.scatter_reduce(2, cells.flatten(2), depth.flatten(2), "amin")
    limit = nearest * (1.0 + config.occlusion_tolerance_relative) + config.occlusion_tolerance_m
    visible = depth <= limit.gather(2, cells.flatten(2)).view(cells.shape)
    seen = torch.zeros(b, views, n, rows * columns + 1, dtype=torch.uint8, device=depth.device)
    seen = seen.scatter_reduce(3, cells, visible.to(torch.uint8), "amax")[..., :-1]
    return seen.transpose(1, 2).flatten(2).bool()


def greedy_cover(
    seen: Bool[Tensor, "b n q"], closed: Bool[Tensor, "b n"], covered: Bool[Tensor, "b q"], count: int
) -> tuple[Int[Tensor, "b count"], Bool[Tensor, "b count"]]:
    """Frames that together newly cover most cells, the best first, and whether there was one.

    Args:
        seen: what each frame covers.
        closed: frames not to choose.
        covered: cells that count as covered.
        count: frames sought; choices that gain nothing are invalid, their index is 0.
    """
    n = seen.shape[1]
    later = torch.arange(n, device=seen.device)
    chosen, gains = [], []
    closed, covered = closed.clone(), covered.clone()
    for _ in range(count):
        gain = (seen & ~covered[:, None]).sum(-1)
        gain = torch.where(closed, torch.full_like(gain, -1), gain)
        best = (gain * n - later).argmax(1)  # the first of equals, on every device
        good = gain.gather(1, best[:, None])[:, 0] > 0
        chosen.append(torch.where(good, best, torch.zeros_like(best)))
        gains.append(good)
        closed = closed.scatter(1, best[:, None], value=True)
        newly = seen.gather(1, best[:, None, None].expand(-1, 1, seen.shape[2]))[:, 0]
        covered = covered | (newly & good[:, None])
    return torch.stack(chosen, 1), torch.stack(gains, 1)


def retrieve(
    seen: Bool[Tensor, "b n q"], count: int, *, has_begun: bool, left_out: Bool[Tensor, "b n"] | None = None
) -> tuple[Int[Tensor, "b count"], Bool[Tensor, "b count"]]:
    """Stored frames for the next chunk, the best last; where fewer are found the first places are invalid.

    Args:
        seen: of `coverage`; the last stored frame is the newest.
        count: frames sought.
        has_begun: whether the newest frame is more than the seed: it reaches the network by its warp and counts as
            covered.
        left_out: frames to pretend were never stored.
    """
    closed = torch.zeros(seen.shape[:2], dtype=torch.bool, device=seen.device) if left_out is None else left_out.clone()
    covered = torch.zeros_like(seen[:, 0])
    if has_begun:
        closed[:, -1] = True
        covered = seen[:, -1].clone()
    chosen, gains = greedy_cover(seen, closed, covered, count)
    return chosen.flip(1), gains.flip(1)
