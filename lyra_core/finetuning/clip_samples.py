"""Training samples of one's own clips, a batch a step: a function of seed, step and process, so that runs can resume.

All processes make the same kind of sample of the same chunk, of different clips: they call the network equally often,
as spread parameters demand, and none waits for another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.finetuning.dataset import OwnClips
from lyra_core.procedural.chunks import ChunkMaker, ChunkRows
from lyra_core.procedural.clip_maker import MixConfig
from lyra_core.procedural.clips import Clips
from lyra_core.training.chunk_pool import joined_rows
from lyra_core.training.data_parallel import ALONE, Replicas
from lyra_core.training.loop import step_generator

RELEASED_MIX = MixConfig(i2v=0.15, plain=0.5, augmented=0.35, photo_share=0.0)
"""Every second sample is plain; of the others seven of ten are self-augmented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """What samples are made of clips; the defaults are those of the released training.

    Attributes:
        mix: kinds of samples.
        clip_frames: frames of a clip that are used; shorter clips are mirrored.
        max_chunks: chunks of a clip that are used at most.
        batch: clips a step and process.
        seed: of the draws.
    """

    mix: MixConfig = field(default_factory=lambda: RELEASED_MIX)
    clip_frames: int = 1000
    max_chunks: int = 13
    batch: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """What a step learns from."""

    kind: str
    chunk: int
    clips: tuple[int, ...]


class ClipSamples:
    """Samples by step; the clips of the next step are read while this one is learnt."""

    def __init__(
        self,
        clips: OwnClips,
        maker: ChunkMaker,
        config: SampleConfig,
        device: str | torch.device,
        replicas: Replicas = ALONE,
    ) -> None:
        """Nothing is read yet.

        Raises:
            ConfigError: clips too short for one chunk.
        """
        self.clips, self.maker, self.config = clips, maker, config
        self.device, self.replicas = torch.device(device), replicas
        self.num_chunks = min(config.max_chunks, (config.clip_frames - 1) // maker.chunk_frames)
        if self.num_chunks < 1 or config.batch < 1:
            raise ConfigError(
                f"samples need a batch of at least 1 and clip_frames of at least {1 + maker.chunk_frames}, found "
                f"{config.batch} and {config.clip_frames}"
            )
        self._reader = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[list[Clips]]] = {}

    def draw(self, step: int) -> _Draw:
        """Kind and chunk are the same in all processes, clips are not.

        Raises:
            ConfigError: a mix of self-augmented samples only, of clips of one chunk.
        """
        shared = step_generator(self.config.seed, step)
        mix = self.config.mix
        shares = torch.tensor([mix.i2v, mix.plain, mix.augmented if self.num_chunks > 1 else 0.0])
        if not float(shares.sum()):
            raise ConfigError("self-augmented samples need clips of two chunks; raise clip_frames or change the mix")
        kind = ("i2v", "plain", "augmented")[int(torch.multinomial(shares, 1, generator=shared))]
        first, end = {"i2v": (0, 1), "plain": (0, self.num_chunks), "augmented": (1, self.num_chunks)}[kind]
        chunk = int(torch.randint(first, end, (), generator=shared))
        own = step_generator(self.replicas.seed(self.config.seed) + 1, step)
        chosen = torch.randint(len(self.clips), (self.config.batch,), generator=own)
        return _Draw(kind=kind, chunk=chunk, clips=tuple(chosen.tolist()))

    def rows(self, step: int, predict: Callable[[ChunkRows], Tensor]) -> ChunkRows:
        """Samples of a step, on the device.

        Args:
            step: which.
            predict: clean latents by one step of the network, for self-augmented histories.

        Raises:
            FormatError, CameraPathError, DepthError: a clip that cannot be read.
        """
        draw = self.draw(step)
        windows = self._ahead.pop(step, None) or self._reader.submit(self._windows, step)
        read = windows.result()
        self._ahead = {step + 1: self._reader.submit(self._windows, step + 1)}
        generator = step_generator(self.replicas.seed(self.config.seed) + 2, step)
        return joined_rows([self._sample(clip, draw, predict, generator) for clip in read])

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead.clear()
        self._reader.shutdown(cancel_futures=True)

    def _windows(self, step: int) -> list[Clips]:
        draw, frames = self.draw(step), self.maker.chunk_frames
        # frames that are remembered, and the last one before the chunk: no other depth is looked at
        every = math.gcd(self.maker.rollout.memory.stride_frames, frames)
        first = 1 + draw.chunk * frames
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        return [
            self.clips.window(clip, first + frames, caption_frame=first, depth_every=every, dtype=dtype)
            for clip in draw.clips
        ]

    def _sample(
        self, clip: Clips, draw: _Draw, predict: Callable[[ChunkRows], Tensor], generator: torch.Generator
    ) -> ChunkRows:
        moved = Clips(**{name: getattr(clip, name).to(self.device) for name in Clips.__dataclass_fields__})
        latents = self.maker.encode(moved.frames)
        known = self.maker.disturbed(moved, generator) if self.maker.config.depth_noise else moved
        if draw.kind == "augmented":
            return self.maker.self_augmented(known, latents, draw.chunk, predict, generator)
        return self.maker.rows(known, latents, draw.chunk, generator)
