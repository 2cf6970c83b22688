"""Training samples of the video network: chunks of rendered clips with the conditions a rollout would build for them.

    clip (frames, depth, cameras, caption) -- autoencoder --> latents of all frames
      chunk k: history = latents before it, memory = every 8th frame before it, target = latents of its 80 frames
      kinds:   i2v (chunk 0), plain (any chunk), augmented (after a chunk that the network made)

Self-augmented histories teach the network to correct its own drift (spec of the released training: one step of the
network from a noise level of at most one half, decoded, in place of the true frames; target and depth stay true).

Legend: b clips, t frames, c channels, h w pixels, n latents, r q rows and columns of latents.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.config.rollout import CorrespondenceConfig, RolloutConfig
from lyra_core.procedural.clips import Clips
from lyra_core.video.chunk_batch import ChunkBatch, RetrievedViews, build_inputs
from lyra_core.video.correspondence import history_maps
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.memory import query_offsets
from lyra_core.video.memory_batch import coverage, retrieve
from lyra_core.video.vae.interface import VideoAutoencoder

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRows:
    """Training samples as they are kept: what is the same in all of them is left out.

    Attributes:
        history: latents of the history slots. [b c n r q]
        generated: mask and condition latents of the generated slots. [b m n2 r q]
        rays: all slots. [b k n3 r q]
        maps: correspondence of the generated slots. [b p n2 r q]
        target: clean latents. [b c n2 r q]
        last: the last frame before the chunk, sRGB bytes. [b 3 h w]
        captions: bytes. [b s]
        frames: true frames of some consecutive latents of the target, sRGB bytes; none where none are kept. [b 3 t h w]
        group: which latent of the target the first of them belongs to, at least 1. [b]
    """

    history: Tensor
    generated: Tensor
    rays: Tensor
    maps: Tensor
    target: Tensor
    last: UInt8[Tensor, "b 3 h w"]
    captions: UInt8[Tensor, "b s"]
    frames: UInt8[Tensor, "b 3 t h w"]
    group: Int64[Tensor, " b"]

    def __len__(self) -> int:
        return int(self.history.shape[0])

    def __getitem__(self, which: Tensor | slice) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def empty(self, count: int) -> Self:
        """Room for rows like these."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: part.new_empty(count, *part.shape[1:]) for name, part in parts.items()})

    def write(self, where: Tensor, rows: ChunkRows) -> None:
        """Replace rows."""
        for f in fields(self):
            getattr(self, f.name)[where] = getattr(rows, f.name)

    def inputs(self, layout: HistoryLayout, config: RolloutConfig) -> ChunkInputs:
        """The network's inputs, without text and image tokens."""
        ones = torch.ones_like(self.history[:, :4])
        before = torch.cat([ones, self.history], dim=1)
        maps = self.maps.new_zeros(*self.maps.shape[:2], layout.num_slots, *self.maps.shape[3:])
        size = (self.last.shape[2], self.last.shape[3])
        own = _own_maps(size, config.conditioning.correspondence, maps.device)
        maps[:, :, list(layout.spatial_slots)] = own.to(maps)
        maps[:, :, layout.num_history :] = self.maps
        return ChunkInputs(
            history=self.history,
            condition=torch.cat([before, self.generated], dim=2),
            rays=self.rays,
            correspondence=maps,
        )

    def last_frames(self) -> Float[Tensor, "b 3 h w"]:
        """The last frames in [-1, 1]."""
        return self.last.float() / 127.5 - 1.0


def _as_bytes(frames: Tensor) -> Tensor:
    """Frames in [-1, 1] as bytes."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@functools.lru_cache(maxsize=4)
def _own_maps(size: tuple[int, int], config: CorrespondenceConfig, device: torch.device) -> Tensor:
    """What the history slots hold is the same in every sample: made once."""
    return history_maps(size, config).to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkConfig:
    """How chunks are drawn from clips.

    Attributes:
        num_chunks: chunks of a clip.
        memory_drop: share of clips whose memory lacks some frames.
        depth_noise: share of clips whose known depth is wrong by a few per cent, smoothly, as estimates are.
        depth_error: standard deviation of its logarithm there.
        kept_latents: latents of the target whose true frames samples keep, for losses on frames.
        context_latents: how far back the autoencoder looks, for self-augmented chunks; None for one that looks back to
            the beginning, as the released one does.
    """

    num_chunks: int = 3
    memory_drop: float = 0.12
    depth_noise: float = 0.5
    depth_error: float = 0.02
    kept_latents: int = 0
    context_latents: int | None = 1


class ChunkMaker:
    """Turns clips into training samples with a frozen autoencoder."""

    def __init__(
        self, vae: VideoAutoencoder, layout: HistoryLayout, rollout: RolloutConfig, config: ChunkConfig
    ) -> None:
        self.vae, self.layout, self.rollout, self.config = vae, layout, rollout, config
        self.step = vae.config.temporal_factor
        self.chunk_frames = layout.num_generated * self.step

    @property
    def num_frames(self) -> int:
        """Frames a clip needs."""
        return 1 + self.config.num_chunks * self.chunk_frames

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b c n r q"]:
        """Latents of whole videos, the repeated seed in front, as a rollout has them (video.world_state)."""
        past = self.layout.num_history
        encoded = min(self.rollout.encoded_prefix or past, past)
        still = frames[:, :1].expand(-1, (encoded - 1) * self.step, -1, -1, -1)
        video = torch.cat([still, frames], dim=1).transpose(1, 2)
        latents = self.vae.encode(video, latents_per_window=self.rollout.latents_per_window).float()
        repeated = latents[:, :, encoded - 1 : encoded].expand(-1, -1, past - encoded, -1, -1)
        return torch.cat([latents[:, :, :encoded], repeated, latents[:, :, encoded:]], dim=2)

    def disturbed(self, clips: Clips, generator: torch.Generator) -> Clips:
        """The clips with depth as it may be known: some off by a smooth factor that differs from frame to frame."""
        b, t, h, w = clips.depth_m.shape
        chosen = torch.rand(b, generator=generator) < self.config.depth_noise
        coarse = torch.randn(b, t, 4, 6, generator=generator) * self.config.depth_error * chosen[:, None, None, None]
        smooth = functional.interpolate(coarse.to(clips.depth_m), (h, w), mode="bilinear", align_corners=True)
        return replace(clips, depth_m=clips.depth_m * torch.exp(smooth))

    @torch.no_grad()
    def rows(
        self,
        clips: Clips,
        latents: Float[Tensor, "b c n r q"],
        chunk: int,
        generator: torch.Generator,
        target: Float[Tensor, "b c n r q"] | None = None,
    ) -> ChunkRows:
        """Samples of one chunk of each clip.

        Args:
            clips: what the history shows; its depth is what is known.
            latents: of `encode`.
            chunk: which.
            generator: on the CPU.
            target: latents whose chunk is learnt; None takes `latents`.
        """
        first = 1 + chunk * self.chunk_frames
        batch = self.chunk_batch(clips, latents, chunk, self._left_out(clips, chunk, generator))
        inputs = build_inputs(batch, self.vae, self.layout, self.rollout.conditioning)
        start = self.layout.num_history + chunk * self.layout.num_generated
        clean = (latents if target is None else target)[:, :, start : start + self.layout.num_generated]
        past = self.layout.num_history
        frames, group = self._kept(clips, first, generator)
        return ChunkRows(
            history=inputs.history.bfloat16(),
            generated=inputs.condition[:, :, past:].bfloat16(),
            rays=inputs.rays.bfloat16(),
            maps=inputs.correspondence[:, :, past:].bfloat16(),
            target=clean.bfloat16(),
            last=_as_bytes(clips.frames[:, first - 1]),
            captions=clips.captions,
            frames=frames,
            group=group,
        )

    def _kept(self, clips: Clips, first: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """True frames of consecutive latents of a chunk and the first such latent, at random in each clip."""
        b, _, _, h, w = clips.frames.shape
        device, count = clips.frames.device, self.config.kept_latents
        if not count:
            empty = torch.empty(b, 3, 0, h, w, dtype=torch.uint8, device=device)
            return empty, torch.ones(b, dtype=torch.int64, device=device)
        # not the first of the chunk: the latent before it is no part of the sample
        group = torch.randint(1, self.layout.num_generated - count + 1, (b,), generator=generator).to(device)
        at = first + self.step * group[:, None] + torch.arange(self.step * count, device=device)
        some = clips.frames[torch.arange(b, device=device)[:, None], at]
        return _as_bytes(some).transpose(1, 2).contiguous(), group

    def _left_out(self, clips: Clips, chunk: int, generator: torch.Generator) -> Tensor:
        """Stored frames to pretend were never stored. [b n]"""
        stored = 1 + chunk * self.chunk_frames // self.rollout.memory.stride_frames
        drops = torch.rand(len(clips.frames), 1, generator=generator) < self.config.memory_drop
        share = torch.rand(len(clips.frames), 1, generator=generator) * 1.4
        dropped = drops & (torch.rand(len(clips.frames), stored, generator=generator) < share)
        return dropped.to(clips.frames.device)

    def chunk_batch(
        self, clips: Clips, latents: Float[Tensor, "b c n r q"], chunk: int, left_out: Tensor | None = None
    ) -> ChunkBatch:
        """What a rollout would know before a chunk, had it made the clips' frames so far."""
        memory, first = self.rollout.memory, 1 + chunk * self.chunk_frames
        stored = slice(0, first, memory.stride_frames)
        asking = [first + i for i in query_offsets(memory.num_query_cameras, self.chunk_frames)]
        w2c, K = clips.world_to_cam, clips.intrinsics
        seen = coverage(clips.depth_m[:, stored], w2c[:, stored], K[:, stored], w2c[:, asking], K[:, asking], memory)
        chosen, valid = retrieve(seen, memory.num_retrieved, has_begun=chunk > 0, left_out=left_out)
        frames = torch.where(valid, chosen * memory.stride_frames, torch.zeros_like(chosen))
        rows = torch.arange(len(frames), device=frames.device)[:, None]
        views = RetrievedViews(
            images=clips.frames[rows, frames].float(),
            depth_m=clips.depth_m[rows, frames],
            world_to_cam=w2c[rows, frames],
            intrinsics=K[rows, frames],
            valid=valid,
        )
        end = first + self.chunk_frames
        return ChunkBatch(
            world_to_cam=w2c[:, :end],
            intrinsics=K[:, :end],
            first_frame=first,
            history=latents[:, :, : self.layout.num_history + chunk * self.layout.num_generated],
            last_image=clips.frames[:, first - 1].float(),
            last_depth_m=clips.depth_m[:, first - 1],
            views=views,
        )

    @torch.no_grad()
    def self_augmented(
        self,
        clips: Clips,
        latents: Float[Tensor, "b c n r q"],
        chunk: int,
        predict: Callable[[ChunkRows], Tensor],
        generator: torch.Generator,
    ) -> ChunkRows:
        """Samples of a chunk whose predecessor is what the network makes of it.

        Args:
            clips: true frames.
            latents: of them.
            chunk: which, at least 1.
            predict: clean latents of samples by one step of the network from a partly noised truth. [b c n2 r q]
            generator: on the CPU.
        """
        before = self.rows(clips, latents, chunk - 1, generator)
        start = self.layout.num_history + (chunk - 1) * self.layout.num_generated
        context = latents[
            :, :, 0 if self.config.context_latents is None else start - self.config.context_latents : start
        ]
        made = torch.cat([context, predict(before).float()], dim=2)
        window = self.rollout.latents_per_window
        video = self.vae.decode(made, latents_per_window=window)[:, :, -self.chunk_frames :].float().clamp(-1, 1)
        first = 1 + (chunk - 1) * self.chunk_frames
        frames = clips.frames.clone()
        frames[:, first : first + self.chunk_frames] = video.transpose(1, 2).to(frames)
        drifted = replace(clips, frames=frames)
        again = self._encoded_again(frames[:, : first + self.chunk_frames], start)
        history = latents.clone()
        history[:, :, start : start + self.layout.num_generated] = again
        return self.rows(drifted, history, chunk, generator, target=latents)

    def _encoded_again(self, frames: Tensor, start: int) -> Float[Tensor, "b c n2 r q"]:
        """Latents of the last chunk of frames, from whose first latent on the past has changed."""
        if self.config.context_latents is None:
            return self.encode(frames)[:, :, start:]
        near = frames[:, -self.chunk_frames - 1 - self.step * (self.config.context_latents - 1) :].transpose(1, 2)
        latents = self.vae.encode(near, latents_per_window=self.rollout.latents_per_window).float()
        return latents[:, :, -self.layout.num_generated :]
