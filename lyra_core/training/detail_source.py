"""Where samples for super-resolution come from: rendered worlds, videos the model made of them, photographs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch

from lyra_core.evaluation.estimated_depth import with_seed_depth
from lyra_core.evaluation.generate import generate
from lyra_core.mini.config import MINI
from lyra_core.mini.depth_estimator import MiniDepthEstimator
from lyra_core.mini.encoders import caption_bytes
from lyra_core.mini.files import load_mini, load_mini_depth
from lyra_core.mini.manifest import MINI_FOLDER
from lyra_core.mini.networks import MiniNetworks
from lyra_core.native import CHUNK_FRAMES
from lyra_core.procedural.atlas import build_atlas
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.procedural.clip_maker import photo_library
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.photo_clips import jitter_colors
from lyra_core.procedural.world_clips import DrawnClips, PathPlan, Views, WorldLibrary, load_views
from lyra_core.procedural.worlds import render_color, render_depth
from lyra_core.training.detail_samples import STRIDE, DetailMaker, DetailSamples, draw_times
from lyra_core.training.loop import step_generator
from lyra_core.video.depth_cache import SKY_DEPTH_M

DEPTH_VIEWS = 10
DETAIL_PATHS = PathPlan(
    num_frames=CHUNK_FRAMES + 1,
    names=(
        "dolly-in",
        "wander",
        "orbit-left",
        "truck-right",
        "wander",
        "out-and-back",
        "pan-left",
        "wander-and-return",
        "dolly-in",
        "truck-left",
        "orbit-right",
        "wander",
        "arc-right",
        "pan-right",
        "zoom-out",
    ),
    takes=2,
    max_stride=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailSourceConfig:
    """What samples are made of.

    Attributes:
        size: rows and columns of low resolution.
        num_scenes: procedural scenes.
        textures_per_kind: procedural textures of each kind.
        texture_size: texels of a side.
        photographs: folder of photographs, or None.
        views: file of camera paths of DETAIL_PATHS, by procedural.world_clips.save_views; None searches for them.
        weights: folder of the packed model that makes videos and errs in depth.
        shares: of rendered worlds, of videos the model made, of photographs.
        videos_at_once: made together.
        frames_a_video: samples taken of each.
        supersample: rays along each side of a pixel.
    """

    size: tuple[int, int] = (128, 224)
    num_scenes: int = 256
    textures_per_kind: int = 12
    texture_size: int = 512
    photographs: Path | None = None
    views: Path | None = None
    weights: Path = MINI_FOLDER
    shares: tuple[float, float, float] = (0.4, 0.35, 0.25)
    videos_at_once: int = 16
    frames_a_video: int = 4
    supersample: int = 2


class DetailSource:
    """Samples of one split on a device."""

    def __init__(
        self, config: DetailSourceConfig, split: str, device: str | torch.device, workers: Executor | None = None
    ) -> None:
        """Build textures and scenes, and load the model.

        Raises:
            WeightsError, SeedError, ConfigError: weights, photographs or views that cannot be read.
        """
        self.config, self.device = config, torch.device(device)
        atlas = build_atlas(
            split,
            per_kind=config.textures_per_kind if split == "train" else max(2, config.textures_per_kind // 4),
            size=config.texture_size,
            photographs=config.photographs,
            workers=workers,
        )
        views: Sequence[Views] | None = None if config.views is None else load_views(config.views, split)
        self.worlds = WorldLibrary(
            range(config.num_scenes), split, atlas.to(device), size=config.size, plan=DETAIL_PATHS, views=views
        )
        photos = photo_library(config.photographs, split, self.device)
        depth = load_mini_depth(config.weights, device)
        self.maker = DetailMaker(self.worlds, photos, depth, supersample=config.supersample)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        models = load_mini(config.weights, device, dtype)
        self.networks = MiniNetworks(models.dit.config)
        self.networks.dit, self.networks.text, self.networks.image = models.dit, models.text, models.image
        self.networks = self.networks.to(device, dtype).eval().requires_grad_(requires_grad=False)
        self.dtype = dtype
        self.chunks = ChunkMaker(
            models.vae,
            models.dit.config.history_layout,
            MINI,
            ChunkConfig(num_chunks=1, memory_drop=0.0, depth_noise=0.0),
        )

    @torch.no_grad()
    def videos(self, count: int, seed: int, *, is_estimated: bool = False) -> DetailSamples:
        """Samples of videos that the model makes along paths of procedural worlds.

        Args:
            count: videos.
            seed: of the draws.
            is_estimated: by depth estimated of their first frames, as in the product; by true depth otherwise.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = self.worlds.draw(count, CHUNK_FRAMES + 1, generator, speed=1)
        clips = self._clips(drawn, seed)
        estimator = None
        if is_estimated:
            estimator = MiniDepthEstimator(self.maker.depth, views=DEPTH_VIEWS)
            clips = with_seed_depth(clips, estimator, MINI.depth)
        video = generate(self.networks, self.chunks, clips, MINI, generator, estimator=estimator)
        parts = [
            self.maker.generated(
                drawn, video, clips.depth_m, draw_times(count, generator), colors=seed, is_estimated=is_estimated
            )
            for _ in range(self.config.frames_a_video)
        ]
        return DetailSamples.joined(parts)

    def _clips(self, drawn: DrawnClips, colors: int) -> Clips:
        """First frames with colour, and the depth that a memory stores."""
        poses, K = drawn.cam_to_world, drawn.intrinsics
        b, t = poses.shape[:2]
        height, width = self.config.size
        first = render_color(drawn.scenes, poses[:, :1], K[:, :1], height, width, supersample=2)
        first = first.permute(0, 1, 4, 2, 3)
        first = jitter_colors(first, torch.Generator().manual_seed(colors), mirror=False)
        frames = first.new_full((b, t, 3, height, width), -1.0)
        frames[:, 0] = first[:, 0] * 2 - 1
        depth = first.new_zeros(b, t, height, width)
        for frame in range(0, t, STRIDE):
            at = slice(frame, frame + 1)
            far = render_depth(drawn.scenes, poses[:, at], K[:, at], height, width)
            depth[:, at] = far.clamp(max=SKY_DEPTH_M)
        return Clips(
            frames=frames.to(self.dtype),
            depth_m=depth,
            world_to_cam=torch.linalg.inv(poses),
            intrinsics=K,
            captions=caption_bytes(drawn.captions).to(self.device),
        )

    def fill(
        self,
        count: int,
        seed: int,
        *,
        until: float | None = None,
        at_once: int = 8,
        report: Callable[[str], None] | None = None,
    ) -> DetailSamples:
        """Samples in the configured shares.

        Args:
            count: wanted.
            seed: of all draws.
            until: time.time() at which to stop with fewer.
            at_once: samples made together.
            report: told how many there are.
        """
        kinds = self._kinds()
        made: list[list[DetailSamples]] = [[] for _ in kinds]
        step = 0
        while (total := sum(len(part) for parts in made for part in parts)) < count:
            if total and until is not None and time.time() >= until:
                break
            have = [sum(len(part) for part in parts) for parts in made]
            lacking = [share * (total + 1) - has for (share, _), has in zip(kinds, have, strict=True)]
            kind = lacking.index(max(lacking))
            made[kind].append(kinds[kind][1](at_once, seed * 100_003 + step))
            step += 1
            if report is not None and step % 16 == 0:
                report(f"samples {total}")
        return DetailSamples.joined([part for parts in made for part in parts])

    def _kinds(self) -> list[tuple[float, Callable[[int, int], DetailSamples]]]:
        rendered, videos, photographs = self.config.shares
        if self.maker.photos is None:
            photographs = 0.0

        def draw(make: Callable[[int, torch.Generator], DetailSamples]) -> Callable[[int, int], DetailSamples]:
            return lambda count, seed: make(count, step_generator(seed, 0))

        kinds = [
            (rendered, draw(self.maker.rendered)),
            (videos, lambda _, seed: self.videos(self.config.videos_at_once, seed, is_estimated=seed % 3 == 0)),
            (photographs, draw(self.maker.photographs)),
        ]
        return [(share, make) for share, make in kinds if share > 0]


def held_out_sets(source: DetailSource, count: int) -> dict[str, DetailSamples]:
    """Fixed samples of each kind to measure on."""
    sets = {"worlds": source.maker.rendered(count, step_generator(71, 0))}
    videos = source.videos(min(count, source.config.videos_at_once), 72)
    sets["videos"] = videos[slice(0, count)]
    if source.maker.photos is not None:
        sets["photos"] = source.maker.photographs(count, step_generator(73, 0))
    return sets
