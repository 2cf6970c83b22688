"""Tells the video model which pixel of which retrieved frame it is about to draw again.

Every retrieved frame carries a canonical coordinate map (column, row, slot); the map is warped to the cameras to be
generated, and the warped depth joins as a fourth channel. The network reads the maps through its attention queries and
keys only.

Legend: n retrieved frames, s spatial slots, b blocks (one a slot, best frame first), t frames, h w pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.config.rollout import COORDINATE_CHANNELS, REFERENCE_CONDITIONING, CorrespondenceConfig
from lyra_core.geometry.warp import WarpSource, forward_warp
from lyra_core.video.memory import StoredView
from lyra_core.video.rays import latent_cells

LATENT_FRAMES = 4


def canonical_coordinates(num_slots: int, height: int, width: int) -> Float[Tensor, "s 3 h w"]:
    """For each slot the map (column, row, slot), each spread from -1 to 1."""
    x = torch.linspace(-1.0, 1.0, width).expand(num_slots, height, width)
    y = torch.linspace(-1.0, 1.0, height)[:, None].expand(num_slots, height, width)
    z = torch.linspace(-1.0, 1.0, num_slots)[:, None, None].expand(num_slots, height, width)
    return torch.stack([x, y, z], dim=1)


@lru_cache(maxsize=4)
def _coordinates_on(device: torch.device, num_slots: int, height: int, width: int) -> Float[Tensor, "s 3 h w"]:
    """The maps made on the CPU, for equal bits everywhere, and carried to a device once, not with every chunk."""
    return canonical_coordinates(num_slots, height, width).to(device)


def history_maps(
    image_size: tuple[int, int], config: CorrespondenceConfig, device: torch.device | str = "cpu"
) -> Float[Tensor, "c s rows columns"]:
    """What spatial history slots hold: their own coordinates in every block; the fourth channel is -1 in the first."""
    blocks, step = config.num_blocks, config.downsample
    coordinates = _coordinates_on(torch.device(device), blocks, *image_size)[..., ::step, ::step]
    own = torch.cat([coordinates, torch.full_like(coordinates[:, :1], -1.0)], dim=1)
    other = torch.cat([coordinates, torch.ones_like(coordinates[:, :1])], dim=1)
    stacked = torch.cat([own, *[other] * (blocks - 1)], dim=1)
    return latent_cells(stacked.transpose(0, 1), config.cell)


def normalise_depth(
    depth_m: Float[Tensor, "n t h w"], over_m: Float[Tensor, "n t2 h w"] | None = None
) -> Float[Tensor, "n t h w"]:
    """Depth mapped to -1..1 by one minimum and maximum over all frames; holes are 0 and usually the minimum."""
    over = depth_m if over_m is None else over_m
    low, high = over.amin(), over.amax()
    return 2.0 * (depth_m - low) / (high - low).clamp(min=1e-6) - 1.0


def generated_maps(
    views: Sequence[StoredView],
    target_world_to_cam: Float[Tensor, "t 4 4"],
    target_intrinsics: Float[Tensor, "t 3 3"],
    image_size: tuple[int, int],
    config: CorrespondenceConfig = REFERENCE_CONDITIONING.correspondence,
) -> Float[Tensor, "c t2 rows columns"]:
    """Warped coordinates of the retrieved frames in every generated slot, best frame in the first block.

    Args:
        views: retrieved frames, best last; fewer than the blocks leaves the last blocks at (-1, -1, -1, +1).
        target_world_to_cam: cameras of the chunk's frames, four a slot.
        target_intrinsics: theirs.
        image_size: rows and columns, pixels.
        config: resolution and range.
    """
    step, blocks = config.downsample, config.num_blocks
    num_frames = target_world_to_cam.shape[0]
    used = list(range(LATENT_FRAMES - 1, num_frames, LATENT_FRAMES))
    rows, columns = -(-image_size[0] // step), -(-image_size[1] // step)
    maps = target_world_to_cam.new_full((blocks, COORDINATE_CHANNELS, len(used), rows, columns), -1.0)
    maps[:, 3] = 1.0
    if views:
        coordinates = _coordinates_on(maps.device, blocks, *image_size)[..., ::step, ::step]
        first = blocks - len(views)
        scale = torch.tensor([1.0 / step, 1.0 / step, 1.0], device=maps.device)[:, None]
        K = target_intrinsics * scale
        depths, ranges = [], []
        # Best first: the last view, which sits in the last slot, fills block 0.
        for block, index in enumerate(reversed(range(len(views)))):
            view = views[index]
            source = WarpSource(
                values=coordinates[first + index][None, None],
                depth_m=view.depth_m[None, None, ::step, ::step],
                world_to_cam=view.world_to_cam[None, None],
                intrinsics=(view.intrinsics * scale)[None, None],
            )
            warp = forward_warp(source, target_world_to_cam, K, config.warp, render=used)
            maps[block, :3] = warp.values.transpose(0, 1)
            depths.append(warp.depth_m)
            ranges.append(_unused_depth(source, target_world_to_cam, K, config, used))
        depth = torch.stack(depths)
        over = torch.cat([depth, torch.stack(ranges)], dim=1) if config.depth_range == "chunk" else depth
        maps[: len(views), 3] = normalise_depth(depth, over)
    return latent_cells(maps.flatten(0, 1), config.cell)


def _unused_depth(
    source: WarpSource,
    world_to_cam: Tensor,
    intrinsics: Tensor,
    config: CorrespondenceConfig,
    used: list[int],
) -> Tensor:
    """Warped depth of the frames whose maps are not used, which still count for the range of the fourth channel."""
    if config.depth_range == "used":
        return source.depth_m.new_zeros(0, *source.depth_m.shape[-2:])
    rest = [i for i in range(world_to_cam.shape[0]) if i not in set(used)]
    alone = WarpSource(
        values=source.values[:, :, :0],
        depth_m=source.depth_m,
        world_to_cam=source.world_to_cam,
        intrinsics=source.intrinsics,
    )
    return forward_warp(alone, world_to_cam, intrinsics, config.warp, render=rest).depth_m
