"""Ready samples of the video network on the device: made beside training, each looked at several times.

worlds, photographs -- render --> clips -- autoencoder, conditions --> rows by kind: i2v, plain, augmented
                                                                         | drawn in the shares of the mix
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.training.chunks import ChunkMaker, ChunkRows, Clips
from lyra_core.training.photo_clips import PhotoLibrary, jitter_colors
from lyra_core.training.photo_worlds import photo_frames
from lyra_core.training.world_clips import DrawnClips, WorldLibrary
from lyra_core.training.worlds import render_frames
from lyra_core.video.depth_cache import SKY_DEPTH_M
from lyra_core.video.mini_encoders import caption_bytes

KINDS = ("i2v", "plain", "augmented")
PHOTO_CAPTION = "a photograph"

Predict = Callable[[ChunkRows], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """What a batch is made of.

    Attributes:
        i2v: share of first chunks, whose only memory is the seed.
        plain: share of chunks after true frames.
        augmented: share of chunks after frames the network made.
        photo_share: share of clips that show photographs.
    """

    i2v: float = 1 / 6
    plain: float = 1 / 2
    augmented: float = 1 / 3
    photo_share: float = 0.3

    def __post_init__(self) -> None:
        if min(self.i2v, self.plain, self.augmented) < 0 or self.i2v + self.plain + self.augmented <= 0:
            raise ConfigError(f"shares of a mix are not negative and not all 0, found {self}")

    def counts(self, batch: int) -> dict[str, int]:
        """Samples of each kind in a batch."""
        total = self.i2v + self.plain + self.augmented
        first, second = round(batch * self.i2v / total), round(batch * self.augmented / total)
        return {"i2v": first, "plain": batch - first - second, "augmented": second}


class ClipMaker:
    """Long clips of procedural worlds and of photographs."""

    def __init__(
        self,
        worlds: WorldLibrary,
        photos: PhotoLibrary | None,
        mix: MixConfig,
        *,
        num_frames: int,
        supersample: int = 2,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.worlds, self.photos, self.mix = worlds, photos, mix
        self.num_frames, self.supersample, self.dtype = num_frames, supersample, dtype

    def draw(self, count: int, generator: torch.Generator) -> Clips:
        """Clips of one sort, drawn by the mix; colours jittered."""
        is_photo = self.photos is not None and float(torch.rand((), generator=generator)) < self.mix.photo_share
        clips = self.photographs(count, generator) if is_photo else self.places(count, generator)
        jittered = jitter_colors((clips.frames.float() + 1) / 2, generator, mirror=False)
        return Clips(
            frames=(jittered * 2 - 1).to(self.dtype),
            depth_m=clips.depth_m,
            world_to_cam=clips.world_to_cam,
            intrinsics=clips.intrinsics,
            captions=clips.captions,
        )

    @torch.no_grad()
    def places(self, count: int, generator: torch.Generator) -> Clips:
        """Clips of procedural worlds."""
        return self.rendered(self.worlds.draw(count, self.num_frames, generator, speed=1))

    @torch.no_grad()
    def rendered(self, drawn: DrawnClips) -> Clips:
        """Clips as drawn from the library."""
        size, at_once = self.worlds.size, self.num_frames if drawn.cam_to_world.is_cuda else 1
        pairs = zip(drawn.cam_to_world.split(at_once, 1), drawn.intrinsics.split(at_once, 1), strict=True)
        parts = [render_frames(drawn.scenes, c, k, *size, supersample=self.supersample) for c, k in pairs]
        rgb = torch.cat([part.rgb for part in parts], 1).permute(0, 1, 4, 2, 3)
        return Clips(
            frames=(rgb * 2 - 1).to(self.dtype),
            depth_m=torch.cat([torch.where(part.sky, SKY_DEPTH_M, part.depth_m) for part in parts], 1),
            world_to_cam=torch.linalg.inv(drawn.cam_to_world),
            intrinsics=drawn.intrinsics,
            captions=caption_bytes(drawn.captions).to(rgb.device),
        )

    @torch.no_grad()
    def photographs(self, count: int, generator: torch.Generator) -> Clips:
        """Clips of photographs.

        Raises:
            ConfigError: there are none.
        """
        if self.photos is None:
            raise ConfigError("clips of photographs were asked for, but there are no photographs")
        made = photo_frames(self.photos, count, self.num_frames, *self.worlds.size, generator)
        return Clips(
            frames=(made.rgb * 2 - 1).to(self.dtype),
            depth_m=made.depth_m,
            world_to_cam=made.world_to_cam,
            intrinsics=made.intrinsics,
            captions=caption_bytes([PHOTO_CAPTION] * count).to(made.rgb.device),
        )


class ChunkPool:
    """Samples by kind, partly replaced while training goes on."""

    def __init__(
        self,
        clips: ClipMaker,
        maker: ChunkMaker,
        capacity: int,
        clips_at_once: int,
    ) -> None:
        """Nothing is made yet.

        Args:
            clips: gives clips.
            maker: makes samples of them.
            capacity: samples kept, shared among kinds by the mix; 0 keeps none and makes every batch anew.
            clips_at_once: clips of one refill.
        """
        self.clips, self.maker, self.capacity, self.clips_at_once = clips, maker, capacity, clips_at_once
        self.rows: dict[str, ChunkRows] = {}
        self.filled = dict.fromkeys(KINDS, 0)
        self.cursor = dict.fromkeys(KINDS, 0)

    def make(self, predict: Predict | None, generator: torch.Generator) -> dict[str, ChunkRows]:
        """Samples of fresh clips: the first chunk, every chunk plain, and a later one after a made one."""
        truth = self.clips.draw(self.clips_at_once, generator)
        latents = self.maker.encode(truth.frames)
        known = self.maker.disturbed(truth, generator)
        chunks = self.maker.config.num_chunks
        made = [self.maker.rows(known, latents, chunk, generator) for chunk in range(chunks)]
        rows = {"i2v": made[0], "plain": joined_rows(made)}
        if predict is not None and chunks > 1 and self.clips.mix.augmented > 0:
            chunk = int(torch.randint(1, chunks, (), generator=generator))
            rows["augmented"] = self.maker.self_augmented(known, latents, chunk, predict, generator)
        return rows

    def add(self, made: dict[str, ChunkRows]) -> None:
        """Keep fresh samples, over the oldest where there is no more room."""
        for kind, fresh in made.items():
            room = max(len(fresh), self.clips.mix.counts(self.capacity)[kind])
            if kind not in self.rows:
                self.rows[kind] = fresh.empty(room)
            at = (self.cursor[kind] + torch.arange(len(fresh))) % room
            self.rows[kind].write(at.to(fresh.history.device), fresh)
            self.cursor[kind] = (self.cursor[kind] + len(fresh)) % room
            self.filled[kind] = min(room, self.filled[kind] + len(fresh))

    def draw(self, batch: int, predict: Predict | None, generator: torch.Generator) -> ChunkRows:
        """A batch in the shares of the mix; kinds that are not there yet are replaced by plain ones."""
        source, filled = self.rows, self.filled
        if not self.capacity:
            source = self.make(predict, generator)
            filled = {kind: len(rows) for kind, rows in source.items()}
        parts = []
        for kind, count in self.clips.mix.counts(batch).items():
            from_kind = kind if filled.get(kind, 0) else "plain"
            at = torch.randint(filled[from_kind], (count,), generator=generator)
            parts.append(source[from_kind][at.to(source[from_kind].history.device)])
        return joined_rows(parts)


def joined_rows(parts: list[ChunkRows]) -> ChunkRows:
    """Samples one after the other."""
    names = ChunkRows.__dataclass_fields__
    return ChunkRows(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def photo_library(folder: Path | None, split: str, device: torch.device) -> PhotoLibrary | None:
    """Photographs of a split, or None where there are none."""
    from lyra_core.training.photographs import load_photographs

    found = [] if folder is None else load_photographs(folder, split)
    return PhotoLibrary.of(found, device) if found else None
