"""Conditions of many chunks at once, for training: the numbers of `Conditioner.build`, which tests compare them with.

Every chunk of a batch begins at the same frame of its video and has equal counts of everything; where fewer frames are
retrieved than there are spatial slots, the first slots repeat the seed frame and are marked invalid.

Legend: b chunks, t frames, s spatial slots, n latents, c channels, h w pixels, r q rows and columns of latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.config.rollout import COORDINATE_CHANNELS, ConditioningConfig, CorrespondenceConfig
from lyra_core.geometry.densify import densify
from lyra_core.geometry.gaps import close_gaps
from lyra_core.geometry.warp import WarpSource, forward_warp
from lyra_core.video.conditioning import MASK_CHANNELS
from lyra_core.video.correspondence import LATENT_FRAMES, canonical_coordinates, history_maps
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.rays import camera_rays
from lyra_core.video.vae.interface import VideoAutoencoder


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedViews:
    """Remembered frames in slot order, the best last.

    Attributes:
        images: sRGB in [-1, 1]; the seed where invalid, like the cameras. [b s 3 h w]
        depth_m: 0 where unknown. [b s h w]
        world_to_cam: rigid. [b s 4 4]
        intrinsics: pixels, integer centres. [b s 3 3]
        valid: whether a frame was retrieved. [b s]
    """

    images: Float[Tensor, "b s 3 h w"]
    depth_m: Float[Tensor, "b s h w"]
    world_to_cam: Float[Tensor, "b s 4 4"]
    intrinsics: Float[Tensor, "b s 3 3"]
    valid: Bool[Tensor, "b s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkBatch:
    """b chunks to generate, and what is known before them; fields as those of conditioning.ChunkRequest.

    Attributes:
        world_to_cam: cameras of all frames up to the end of the chunk. [b t 4 4] float32
        intrinsics: theirs. [b t 3 3] float32
        first_frame: number of the chunk's first frame.
        history: latents of the video so far, prefix included. [b c n r q]
        last_image: the last frame before the chunk, in [-1, 1]. [b 3 h w]
        last_depth_m: its depth, 0 where unknown. [b h w]
        views: retrieved frames.
    """

    world_to_cam: Float[Tensor, "b t 4 4"]
    intrinsics: Float[Tensor, "b t 3 3"]
    first_frame: int
    history: Float[Tensor, "b c n r q"]
    last_image: Float[Tensor, "b 3 h w"]
    last_depth_m: Float[Tensor, "b h w"]
    views: RetrievedViews


@torch.no_grad()
def build_inputs(
    batch: ChunkBatch, vae: VideoAutoencoder, layout: HistoryLayout, config: ConditioningConfig
) -> ChunkInputs:
    """Inputs of the chunks without text and image, float32."""
    frames = layout.num_generated * vae.config.temporal_factor
    targets = _Targets(
        world_to_cam=batch.world_to_cam[:, batch.first_frame : batch.first_frame + frames],
        intrinsics=batch.intrinsics[:, batch.first_frame : batch.first_frame + frames],
    )
    history = _history(batch, vae, layout)
    warped, landed = warp_last_frames(batch, targets, config)
    video = torch.cat([warped[:, :1], warped], dim=1).transpose(1, 2)
    generated = vae.encode(video, latents_per_window=layout.num_generated)[:, :, 1:].float()
    condition = torch.cat([history, generated], dim=2)
    mask = condition.new_ones(condition.shape[0], MASK_CHANNELS, *condition.shape[2:])
    if config.mask_channels == "coverage":
        share = torch.nn.functional.avg_pool2d(landed.float(), vae.config.spatial_factor)
        slots = share.unflatten(1, (layout.num_generated, MASK_CHANNELS)).transpose(1, 2)
        mask[:, :, layout.num_history :] = slots
    return ChunkInputs(
        history=history,
        condition=torch.cat([mask, condition], dim=1),
        rays=_rays(batch, layout, config, vae.config.temporal_factor, vae.config.spatial_factor),
        correspondence=_correspondence(batch, targets, layout, config),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    """Cameras of the chunk's frames: [b t 4 4] and [b t 3 3]."""

    world_to_cam: Tensor
    intrinsics: Tensor

    def warp(self, source: WarpSource, config: ConditioningConfig) -> tuple[Tensor, Tensor, Tensor]:
        """Values [b t c h w], depth and landed pixels [b t h w] of one source a chunk."""
        dense = densify(source, config.density, config.warp)
        warped = forward_warp(dense, self.world_to_cam.flatten(0, 1), self.intrinsics.flatten(0, 1), config.warp)
        shape = self.world_to_cam.shape[:2]
        return warped.values.unflatten(0, shape), warped.depth_m.unflatten(0, shape), warped.mask.unflatten(0, shape)


def _history(batch: ChunkBatch, vae: VideoAutoencoder, layout: HistoryLayout) -> Float[Tensor, "b c n r q"]:
    chosen = batch.history[:, :, layout.temporal_indices(batch.history.shape[2])].float()
    b, c = chosen.shape[:2]
    slots = chosen.new_empty(b, c, layout.num_history, *chosen.shape[3:])
    slots[:, :, list(layout.temporal_slots)] = chosen
    alone = vae.encode(batch.views.images.flatten(0, 1)[:, :, None])[:, :, 0].float()
    slots[:, :, list(layout.spatial_slots)] = alone.unflatten(0, (b, -1)).transpose(1, 2)
    return slots


def warp_last_frames(
    batch: ChunkBatch, targets: _Targets, config: ConditioningConfig
) -> tuple[Float[Tensor, "b t 3 h w"], Bool[Tensor, "b t h w"]]:
    """The last frames seen by the chunks' cameras (-1 in holes), and where there is no hole."""
    last = batch.first_frame - 1
    source = WarpSource(
        values=batch.last_image[:, None],
        depth_m=batch.last_depth_m[:, None],
        world_to_cam=batch.world_to_cam[:, last : last + 1],
        intrinsics=batch.intrinsics[:, last : last + 1],
    )
    values, depth, landed = targets.warp(source, config)
    views = batch.views
    for slot in _used_slots(views) if config.union_warp else ():
        here = slice(slot, slot + 1)
        source = WarpSource(
            values=views.images[:, here],
            depth_m=views.depth_m[:, here],
            world_to_cam=views.world_to_cam[:, here],
            intrinsics=views.intrinsics[:, here],
            mask=views.valid[:, here, None, None].expand_as(views.depth_m[:, here]),
        )
        other, beyond, where = targets.warp(source, config)
        values = torch.where(landed[:, :, None], values, other)
        depth = torch.where(landed, depth, beyond)
        landed = landed | where
    shape = landed.shape[:2]
    values, _, landed = close_gaps(values.flatten(0, 1), depth.flatten(0, 1), landed.flatten(0, 1), config.gap_px)
    return values.unflatten(0, shape), landed.unflatten(0, shape)


def _used_slots(views: RetrievedViews) -> list[int]:
    """Slots in which any chunk has a retrieved frame, the best first."""
    return [slot for slot, used in reversed(list(enumerate(views.valid.any(0).tolist()))) if used]


def _rays(
    batch: ChunkBatch, layout: HistoryLayout, config: ConditioningConfig, step: int, stride: int
) -> Float[Tensor, "b c n r q"]:
    """Each slot's rays are those of the last frame of its latent; retrieved frames have their own."""
    prefix = batch.history.shape[2] - (batch.first_frame - 1) // step
    latents = layout.temporal_indices(batch.history.shape[2])
    temporal = [max(0, (latent - prefix + 1) * step) for latent in latents]
    generated = [batch.first_frame + step * (i + 1) - 1 for i in range(layout.num_generated)]
    w2c, K = batch.world_to_cam, batch.intrinsics
    cameras = w2c.new_empty(w2c.shape[0], layout.num_slots, 4, 4)
    intrinsics = K.new_empty(K.shape[0], layout.num_slots, 3, 3)
    places = ((layout.temporal_slots, temporal), (range(layout.num_history, layout.num_slots), generated))
    for slots, frames in places:
        cameras[:, list(slots)], intrinsics[:, list(slots)] = w2c[:, frames], K[:, frames]
    cameras[:, list(layout.spatial_slots)] = batch.views.world_to_cam
    intrinsics[:, list(layout.spatial_slots)] = batch.views.intrinsics
    size, downsample = batch.last_depth_m.shape[1:], config.ray_downsample
    relative = torch.matmul(w2c[:, batch.first_frame - 1 : batch.first_frame], torch.linalg.inv(cameras))
    scale = K.new_tensor([1.0 / downsample, 1.0 / downsample, 1.0])[:, None]
    rays = camera_rays(relative, intrinsics * scale, size[0] // downsample, size[1] // downsample)
    cell = stride // downsample
    return rearrange(rays, "b t (h p) (w q) c -> b (c p q) t h w", p=cell, q=cell)


def _correspondence(
    batch: ChunkBatch, targets: _Targets, layout: HistoryLayout, config: ConditioningConfig
) -> Float[Tensor, "b c n r q"]:
    size, chosen = tuple(batch.last_depth_m.shape[1:]), config.correspondence
    generated = _generated_maps(batch.views, targets, config)
    maps = generated.new_zeros(generated.shape[0], generated.shape[1], layout.num_slots, *generated.shape[3:])
    maps[:, :, list(layout.spatial_slots)] = history_maps((size[0], size[1]), chosen).to(maps)
    maps[:, :, layout.num_history :] = generated
    return maps


def _generated_maps(views: RetrievedViews, targets: _Targets, config: ConditioningConfig) -> Float[Tensor, "b c n r q"]:
    """As correspondence.generated_maps: block 0 is the last slot's."""
    chosen, step = config.correspondence, config.correspondence.downsample
    b, slots, height, width = views.depth_m.shape
    cameras = _MapCameras.of(targets, chosen)
    coordinates = canonical_coordinates(slots, height, width)[..., ::step, ::step].to(views.depth_m.device)
    shape = (b, slots, cameras.num_used, *coordinates.shape[2:])
    values, depth = views.depth_m.new_full((*shape[:3], 3, *shape[3:]), -1.0), views.depth_m.new_zeros(shape)
    low, high = views.depth_m.new_full((b,), torch.inf), views.depth_m.new_full((b,), -torch.inf)
    for slot in _used_slots(views):
        here = slice(slot, slot + 1)
        source = WarpSource(
            values=coordinates[slot].expand(b, 1, *coordinates.shape[1:]),
            depth_m=views.depth_m[:, here, ::step, ::step],
            world_to_cam=views.world_to_cam[:, here],
            intrinsics=views.intrinsics[:, here] * cameras.scale,
            mask=views.valid[:, here, None, None].expand(b, 1, *coordinates.shape[2:]),
        )
        warp = forward_warp(source, cameras.world_to_cam, cameras.intrinsics, chosen.warp, render=cameras.used)
        values[:, slots - 1 - slot] = warp.values.unflatten(0, (b, -1))
        depth[:, slots - 1 - slot] = warp.depth_m.unflatten(0, (b, -1))
        seen = [warp.depth_m]
        if cameras.rest:
            alone = replace(source, values=source.values[:, :, :0])
            rest = forward_warp(alone, cameras.world_to_cam, cameras.intrinsics, chosen.warp, render=cameras.rest)
            seen.append(rest.depth_m)
        is_valid = views.valid[:, slot]
        for part in seen:
            flat = part.unflatten(0, (b, -1)).flatten(1)
            low = torch.where(is_valid, torch.minimum(low, flat.amin(1)), low)
            high = torch.where(is_valid, torch.maximum(high, flat.amax(1)), high)
    valid = views.valid.flip(1)[:, :, None, None, None]
    least, most = low[:, None, None, None, None], high[:, None, None, None, None]
    fourth = 2.0 * (depth - least) / (most - least).clamp(min=1e-6) - 1.0
    fourth = torch.where(valid, fourth, torch.ones_like(fourth))
    maps = torch.cat([values, fourth[:, :, :, None]], dim=3)
    maps = maps.transpose(2, 3).reshape(b, slots * COORDINATE_CHANNELS, cameras.num_used, *maps.shape[-2:])
    return rearrange(maps, "b c t (h p) (w q) -> b (c p q) t h w", p=chosen.cell, q=chosen.cell)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MapCameras:
    """Cameras of b chunks to which coordinates are warped, one after the other: [n 4 4] and [n 3 3].

    Attributes:
        world_to_cam: all of them, or, where the others change nothing, those whose maps are used.
        intrinsics: of the maps' resolution.
        scale: of intrinsics to that resolution. [3 1]
        used: positions whose maps are used; None for all.
        rest: positions whose warped depth counts for the range of the fourth channel only.
        num_used: frames of a chunk whose maps are used.
    """

    world_to_cam: Tensor
    intrinsics: Tensor
    scale: Tensor
    used: list[int] | None
    rest: list[int]
    num_used: int

    @classmethod
    def of(cls, targets: _Targets, config: CorrespondenceConfig) -> _MapCameras:
        """As the range and the groups of the warp's normaliser ask."""
        b, frames = targets.world_to_cam.shape[:2]
        one = list(range(LATENT_FRAMES - 1, frames, LATENT_FRAMES))
        scale = targets.intrinsics.new_tensor([1.0 / config.downsample, 1.0 / config.downsample, 1.0])[:, None]
        w2c, K = targets.world_to_cam, targets.intrinsics * scale
        if config.warp.group_size is None and config.depth_range == "used":
            used, rest = None, []
            w2c, K = w2c[:, one], K[:, one]
        else:
            used = [clip * frames + frame for clip in range(b) for frame in one]
            others = [frame for frame in range(frames) if frame not in one]
            rest = [clip * frames + frame for clip in range(b) for frame in others]
            rest = rest if config.depth_range == "chunk" else []
        flat = (w2c.flatten(0, 1), K.flatten(0, 1))
        return cls(world_to_cam=flat[0], intrinsics=flat[1], scale=scale, used=used, rest=rest, num_used=len(one))
