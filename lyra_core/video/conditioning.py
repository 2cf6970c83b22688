"""Gathers everything the network is told about a chunk: history, warped last frame, rays and correspondences.

    slots                    history latents   condition latents       rays                correspondence
    temporal (anchor, past)  of the video      the same                of their last frame 0 (ignored)
    spatial (retrieved)      encoded alone     the same                of the frame        own coordinates
    generated                -                 of the warped last      of their last frame warped coordinates

Where fewer frames are retrieved than there are spatial slots, the first of these slots repeat the seed frame.

Legend: t frames of the video so far and of the chunk, n history latents, h w pixels, r c rows and columns of latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.config.rollout import REFERENCE_CONDITIONING, ConditioningConfig
from lyra_core.errors import FrameError
from lyra_core.geometry.densify import densify
from lyra_core.geometry.gaps import close_gaps
from lyra_core.geometry.warp import Warp, WarpSource, forward_warp
from lyra_core.video.correspondence import generated_maps, history_maps
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.memory import StoredView
from lyra_core.video.rays import ray_channels
from lyra_core.video.vae.interface import VideoAutoencoder

MASK_CHANNELS = 4
SEED_FRAME = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRequest:
    """One chunk to generate, and what is known before it.

    Attributes:
        world_to_cam: cameras of all frames up to the end of the chunk. [t 4 4] float32
        intrinsics: theirs. [t 3 3] float32
        first_frame: number of the chunk's first frame; the last frame before it is the last of the history.
        history: latents of the video so far, prefix included. [c n rows columns]
        last_image: the last frame before the chunk, sRGB in [-1, 1]. [3 h w]
        last_depth_m: its depth, 0 where unknown. [h w]
        retrieved: remembered frames, the best last.
    """

    world_to_cam: Float[Tensor, "t 4 4"]
    intrinsics: Float[Tensor, "t 3 3"]
    first_frame: int
    history: Float[Tensor, "c n rows columns"]
    last_image: Float[Tensor, "3 h w"]
    last_depth_m: Float[Tensor, "h w"]
    retrieved: tuple[StoredView, ...] = ()


class Conditioner:
    """Builds the inputs of chunk after chunk of one world; what does not change between chunks is made once.

    Retrieved frames are encoded once in a world, however often they are retrieved.
    """

    def __init__(
        self,
        vae: VideoAutoencoder,
        layout: HistoryLayout,
        images: Callable[[int], Tensor],
        config: ConditioningConfig = REFERENCE_CONDITIONING,
        latents_per_window: int = 1,
    ) -> None:
        """`images` gives a remembered frame or photograph by its id: sRGB in [-1, 1]. [3 h w]"""
        self.vae = vae
        self.layout = layout
        self.images = images
        self.config = config
        self.latents_per_window = latents_per_window
        self._alone: dict[int, Tensor] = {}

    @torch.no_grad()
    def build(self, request: ChunkRequest) -> ChunkInputs:
        """Inputs of one chunk without text and image, float32, batch 1.

        Raises:
            FrameError: cameras missing for the chunk, too few history latents, or images that are no whole latents.
        """
        self._require_cameras(request)
        history = self._history(request)
        warped, landed = self.warp_last_frame(request)
        generated = self._encode_warped(warped)
        condition = torch.cat([history, generated.to(history)], dim=1)
        return ChunkInputs(
            history=history[None],
            condition=torch.cat([self._mask(landed, condition), condition])[None],
            rays=self._rays(request)[None],
            correspondence=self._correspondence(request)[None],
        )

    def warp_last_frame(self, request: ChunkRequest) -> tuple[Float[Tensor, "t 3 h w"], Bool[Tensor, "t h w"]]:
        """The last frame seen by the chunk's cameras (-1 in holes), and where it is no hole."""
        targets = self._targets(request)
        last = request.first_frame - 1
        source = _source(request.last_image, request.last_depth_m, request.world_to_cam[last], request.intrinsics[last])
        first = self._warp(source, targets)
        values, depth, landed = first.values, first.depth_m, first.mask
        for view in reversed(request.retrieved) if self.config.union_warp else ():
            if landed.all():
                break
            source = _source(self.images(view.frame_id), view.depth_m, view.world_to_cam, view.intrinsics)
            other = self._warp(source, targets)
            values = torch.where(landed[:, None], values, other.values)
            depth = torch.where(landed, depth, other.depth_m)
            landed = landed | other.mask
        values, _, landed = close_gaps(values, depth, landed, self.config.gap_px)
        return values, landed

    def _warp(self, source: WarpSource, targets: tuple[Tensor, Tensor]) -> Warp:
        return forward_warp(densify(source, self.config.density, self.config.warp), *targets, self.config.warp)

    def _targets(self, request: ChunkRequest) -> tuple[Tensor, Tensor]:
        chunk = slice(request.first_frame, request.first_frame + self._chunk_frames)
        return request.world_to_cam[chunk], request.intrinsics[chunk]

    @property
    def _chunk_frames(self) -> int:
        return self.layout.num_generated * self.vae.config.temporal_factor

    def _require_cameras(self, request: ChunkRequest) -> None:
        wanted = request.first_frame + self._chunk_frames
        if request.world_to_cam.shape[0] < wanted:
            raise FrameError(
                f"the chunk from frame {request.first_frame} needs cameras for {wanted} frames, "
                f"found {request.world_to_cam.shape[0]}"
            )

    def _spatial_ids(self, request: ChunkRequest) -> list[int]:
        """Ids in the spatial slots: the seed frame first where too few are retrieved."""
        ids = [view.frame_id for view in request.retrieved]
        return [SEED_FRAME] * (len(self.layout.spatial_slots) - len(ids)) + ids

    def _history(self, request: ChunkRequest) -> Float[Tensor, "c n rows columns"]:
        chosen = request.history[:, self.layout.temporal_indices(request.history.shape[1])].float()
        slots = chosen.new_empty(chosen.shape[0], self.layout.num_history, *chosen.shape[2:])
        slots[:, list(self.layout.temporal_slots)] = chosen
        for slot, frame_id in zip(self.layout.spatial_slots, self._spatial_ids(request), strict=True):
            slots[:, slot] = self.encode_alone(frame_id).to(slots)
        return slots

    def encode_alone(self, frame_id: int) -> Float[Tensor, "c rows columns"]:
        """Latent of one remembered frame as a still image, encoded the first time it is asked for."""
        if frame_id not in self._alone:
            image = self.images(frame_id)[None, :, None]
            self._alone[frame_id] = self.vae.encode(image.to(self._device))[0, :, 0].float()
        return self._alone[frame_id]

    @property
    def _device(self) -> torch.device:
        return next(iter(self.vae.parameters())).device

    def _encode_warped(self, warped: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "c n rows columns"]:
        """Latents of the warped frames; the first one is doubled in front because the first latent holds one frame."""
        video = torch.cat([warped[:1], warped]).transpose(0, 1)[None]
        latents = self.vae.encode(video.to(self._device), latents_per_window=self.latents_per_window)
        return latents[0, :, 1:].float()

    def _mask(self, landed: Bool[Tensor, "t h w"], condition: Tensor) -> Float[Tensor, "m n rows columns"]:
        mask = condition.new_ones(MASK_CHANNELS, *condition.shape[1:])
        if self.config.mask_channels == "coverage":
            stride = self.vae.config.spatial_factor
            fraction = torch.nn.functional.avg_pool2d(landed.float(), stride)
            slots = fraction.unflatten(0, (self.layout.num_generated, MASK_CHANNELS))
            mask[:, self.layout.num_history :] = slots.transpose(0, 1).to(mask)
        return mask

    def _rays(self, request: ChunkRequest) -> Float[Tensor, "c n rows columns"]:
        """Each slot's rays are those of the last frame of its latent; the repeated seed has the seed's."""
        step = self.vae.config.temporal_factor
        prefix = request.history.shape[1] - (request.first_frame - 1) // step
        latents = self.layout.temporal_indices(request.history.shape[1])
        temporal = [max(0, (latent - prefix + 1) * step) for latent in latents]
        generated = [request.first_frame + step * (i + 1) - 1 for i in range(self.layout.num_generated)]
        w2c, K = request.world_to_cam, request.intrinsics
        retrieved = request.retrieved
        padding = len(self.layout.spatial_slots) - len(retrieved)
        spatial_w2c = torch.stack([w2c[SEED_FRAME]] * padding + [v.world_to_cam.to(w2c) for v in retrieved])
        spatial_K = torch.stack([K[SEED_FRAME]] * padding + [v.intrinsics.to(K) for v in retrieved])
        slots = torch.empty(self.layout.num_slots, dtype=torch.int64)
        slots[list(self.layout.temporal_slots)] = torch.arange(len(temporal))
        slots[list(self.layout.spatial_slots)] = len(temporal) + torch.arange(len(spatial_w2c))
        slots[self.layout.num_history :] = len(temporal) + len(spatial_w2c) + torch.arange(len(generated))
        cameras = torch.cat([w2c[temporal], spatial_w2c, w2c[generated]])[slots]
        intrinsics = torch.cat([K[temporal], spatial_K, K[generated]])[slots]
        return ray_channels(
            cameras,
            intrinsics,
            w2c[request.first_frame - 1],
            self._image_size(request),
            latent_stride=self.vae.config.spatial_factor,
            downsample=self.config.ray_downsample,
        )

    def _correspondence(self, request: ChunkRequest) -> Float[Tensor, "c n rows columns"]:
        size, config = self._image_size(request), self.config.correspondence
        generated = generated_maps(request.retrieved, *self._targets(request), size, config)
        maps = generated.new_zeros(generated.shape[0], self.layout.num_slots, *generated.shape[2:])
        maps[:, list(self.layout.spatial_slots)] = history_maps(size, config, maps.device).to(maps)
        maps[:, self.layout.num_history :] = generated
        return maps

    @staticmethod
    def _image_size(request: ChunkRequest) -> tuple[int, int]:
        height, width = request.last_depth_m.shape
        return height, width


def _source(image: Tensor, depth_m: Tensor, world_to_cam: Tensor, intrinsics: Tensor) -> WarpSource:
    """One frame as the source of a warp, on the depth's device."""
    return WarpSource(
        values=image[None, None].to(depth_m),
        depth_m=depth_m[None, None],
        world_to_cam=world_to_cam[None, None].to(depth_m),
        intrinsics=intrinsics[None, None].to(depth_m),
    )
