"""Long clips of procedural worlds and of photographs, drawn in the shares of a mix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lyra_core.errors import ConfigError
from lyra_core.mini.encoders import caption_bytes
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.photo_clips import PhotoLibrary, jitter_colors
from lyra_core.procedural.photo_worlds import photo_frames
from lyra_core.procedural.photographs import load_photographs
from lyra_core.procedural.world_clips import DrawnClips, WorldLibrary
from lyra_core.procedural.worlds import render_frames
from lyra_core.video.depth_cache import SKY_DEPTH_M

PHOTO_CAPTION = "a photograph"


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
        clips = photo_frames(self.photos, count, self.num_frames, *self.worlds.size, generator)
        return Clips(
            frames=(clips.rgb * 2 - 1).to(self.dtype),
            depth_m=clips.depth_m,
            world_to_cam=clips.world_to_cam,
            intrinsics=clips.intrinsics,
            captions=caption_bytes([PHOTO_CAPTION] * count).to(clips.rgb.device),
        )


def photo_library(folder: Path | None, split: str, device: torch.device) -> PhotoLibrary | None:
    """Photographs of a split, or None where there are none."""
    images = [] if folder is None else load_photographs(folder, split)
    return PhotoLibrary.of(images, device) if images else None
