"""What every part of the table works with: the networks, held-out clips, generated videos, noted rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lyra_core.evaluation.estimated_depth import with_seed_depth
from lyra_core.evaluation.generate import generate
from lyra_core.evaluation.measures import mean_of
from lyra_core.evaluation.results import cpu_name
from lyra_core.evaluation.table import Row
from lyra_core.extras import is_installed
from lyra_core.factory import factory_root
from lyra_core.image_features import PACKAGES, ImageFeatures, load_image_features
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.depth_estimator import MiniDepthEstimator
from lyra_core.mini.files import load_mini, load_mini_depth
from lyra_core.mini.manifest import MINI_FOLDER, mini_digest
from lyra_core.mini.networks import MiniNetworks
from lyra_core.procedural.atlas import Atlas, build_atlas
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.procedural.clip_maker import ClipMaker, MixConfig, photo_library
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.world_clips import (
    DrawnClips,
    PathPlan,
    Views,
    WorldLibrary,
    load_views,
    sample_views,
    save_views,
)
from lyra_core.procedural.worlds import render_depth
from lyra_core.video.depth_cache import SKY_DEPTH_M
from lyra_core.weights.ema_weights import load_weights
from lyra_core.world_models.mini import DEPTH_VIEWS

SIZE = (128, 224)
SEEDS = factory_root() / "examples" / "seeds"
STRIDE = 8
"""Frames from one remembered frame to the next: only these need to be rendered."""
NOISE_SEED = 17
MEASURING = "lite1"
"""The image network of measures: training looks with lite0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What is measured, on what.

    Attributes:
        out: folder for pictures.
        device: "cuda", "cuda:N" or "cpu".
        scenes: held-out scenes of most rows.
        weights: folder of packed weights.
        views: folder that keeps the camera paths between runs; None searches for them.
        feature_weights: weights of EfficientNet-Lite1; None reads its package, and leaves its rows out where there is
            none.
    """

    out: Path
    device: str = "cuda"
    scenes: int = 32
    weights: Path = MINI_FOLDER
    views: Path | None = None
    feature_weights: Path | None = None


class Bench:
    """Networks and clips on a device, and the rows measured of them."""

    def __init__(self, config: BenchConfig, workers: Executor | None, say: Callable[[str], None]) -> None:
        self.say = say
        self.device, self.out, self.scenes = torch.device(config.device), config.out, config.scenes
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # kernels of Triton start on the current device, wherever their data lie
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.folder, self.workers, self.view_folder = config.weights, workers, config.views
        self.models = load_mini(self.folder, self.device, self.dtype)
        self.digest = mini_digest(self.folder)
        self.video = self.networks("video")
        self.estimator = MiniDepthEstimator(load_mini_depth(self.folder, self.device), views=DEPTH_VIEWS)
        self.maker = ChunkMaker(
            self.models.vae,
            self.video.dit.config.history_layout,
            self.models.config,
            ChunkConfig(num_chunks=1, memory_drop=0.0, depth_noise=0.0),
        )
        self.is_whole = self.device.type == "cuda"
        """Whether there is time for the lines that take minutes on a processor."""
        self.features = self._features(config.feature_weights)
        """Sees with another network than those that train; None where its weights are not there."""
        self._atlas: Atlas | None = None
        self.rows: dict[str, Row] = {}
        self.details: dict[str, float] = {}

    def _features(self, path: Path | None) -> ImageFeatures | None:
        if path is None and not is_installed(PACKAGES[MEASURING]):
            self.say(f"rows of image features are left out: {PACKAGES[MEASURING]} is not installed (extra train)")
            return None
        return load_image_features(MEASURING, levels=3, path=path, device=self.device)

    @property
    def hardware(self) -> str:
        """What the numbers are measured on, in a few words."""
        if self.device.type == "cuda":
            return f"1 x {torch.cuda.get_device_name(self.device)}"
        return f"{torch.get_num_threads()} cores of {cpu_name()}"

    def networks(self, which: str) -> MiniNetworks:
        """A component of the folder by its name, or EMA weights of a run by their path."""
        if Path(which).suffix == ".safetensors":
            networks = MiniNetworks(MINI_DIT)
            load_weights(networks, Path(which), "video")
        else:
            models = load_mini(self.folder, component=which)
            networks = MiniNetworks(models.dit.config)
            networks.dit, networks.text, networks.image = models.dit, models.text, models.image
        return networks.to(self.device, self.dtype).eval().requires_grad_(requires_grad=False)

    def note(self, key: str, values: Tensor | float, note: str = "", scenes: int | None = None) -> None:
        """Keep and tell a row: the mean of what was measured of each scene."""
        value, count = float("nan"), 1
        if isinstance(values, Tensor) and values.ndim > 0:
            value, count = mean_of(values.float().cpu()), len(values)
        else:
            value = float(values)
        count = count if scenes is None else scenes
        row = Row(key=key, value=round(value, 4), scenes=count, hardware=self.hardware, note=note)
        self.rows[key] = row
        mark = {True: "met", False: "MISSED", None: ""}[row.is_met]
        self.say(f"{key:28s} {row.value:9.3f}  target {row.asked.target}  {mark}")

    def detail(self, **values: float) -> None:
        """Numbers for the result file that have no line in the table."""
        self.details |= {name: round(float(value), 4) for name, value in values.items()}
        self.say(json.dumps({name: round(float(value), 3) for name, value in values.items()}))

    # ---------------------------------------------------------------- clips

    @property
    def atlas(self) -> Atlas:
        """Textures that no training saw."""
        if self._atlas is None:
            atlas = build_atlas("heldout", per_kind=4, photographs=SEEDS, workers=self.workers)
            self._atlas = atlas.to(self.device)
        return self._atlas

    def library(self, plan: PathPlan, scenes: int | None = None, atlas: Atlas | None = None) -> WorldLibrary:
        """The held-out scenes with camera paths of a plan, with other textures if an atlas is given."""
        views = self._views(plan)[: scenes or self.scenes]
        return WorldLibrary(range(10_000), "heldout", atlas or self.atlas, size=SIZE, plan=plan, views=views)

    def clips(
        self,
        plan: PathPlan,
        frames: list[int],
        *,
        at_once: int,
        scenes: int | None = None,
        with_depth: Sequence[int] = (),
    ) -> Iterator[Clips]:
        """Clips of held-out scenes, some at a time, of which only some frames are drawn; the others are black.

        Args:
            plan: camera paths.
            frames: those with colour and depth.
            at_once: most clips of an item.
            scenes: how many, if not all of the benchmark's.
            with_depth: more frames whose depth is wanted.
        """
        library = self.library(plan, scenes)
        maker = ClipMaker(
            library,
            photo_library(SEEDS, "heldout", self.device),
            MixConfig(),
            num_frames=plan.num_frames,
            dtype=self.dtype,
        )
        for drawn in library.every():
            for at in torch.arange(len(drawn.captions), device=self.device).split(at_once):
                yield sparse(maker, some_drawn(drawn, at), frames, list(with_depth))

    def _views(self, plan: PathPlan) -> list[Views]:
        """Camera paths of a plan, kept in a file: the search takes longer than the measures."""
        if self.view_folder is None:
            return sample_views(range(self.scenes + 8), "heldout", plan, SIZE, self.workers)
        path = self.view_folder / f"{plan.names[0]}-{plan.num_frames}.npz"
        if not path.is_file():
            save_views(path, {"heldout": sample_views(range(40), "heldout", plan, SIZE, self.workers)})
        return load_views(path, "heldout")

    # ---------------------------------------------------------------- videos

    def make(
        self,
        clips: Clips,
        *,
        steps: int = 4,
        memory: bool = True,
        networks: MiniNetworks | None = None,
        depth: Literal["true", "estimated", "of seed"] = "true",
    ) -> Tensor:
        """Generated videos of clips, in [0, 1].

        Args:
            clips: seeds and cameras.
            steps: of the sampler.
            memory: False forgets everything but the last frames.
            networks: of the video model; None for the folder's.
            depth: "true" of all frames, "estimated" of all, or estimated where the clips have that of their seeds.
        """
        config = replace(self.models.config, num_steps=steps)
        if steps != self.models.config.num_steps:
            config = replace(config, sampler="euler")
        estimator = None if depth == "true" else self.estimator
        seeds = with_seed_depth(clips, self.estimator, config.depth) if depth == "estimated" else clips
        video = generate(
            networks or self.video,
            self.maker,
            seeds,
            config,
            torch.Generator().manual_seed(NOISE_SEED),
            memory=memory,
            estimator=estimator,
        )
        return (video.float() + 1) / 2


def some_drawn(drawn: DrawnClips, at: Tensor) -> DrawnClips:
    """Some of the clips, by index."""
    return replace(
        drawn,
        scenes=drawn.scenes[at],
        cam_to_world=drawn.cam_to_world[at],
        intrinsics=drawn.intrinsics[at],
        captions=tuple(drawn.captions[i] for i in at.tolist()),
    )


def sparse(maker: ClipMaker, drawn: DrawnClips, frames: list[int], with_depth: list[int]) -> Clips:
    """Clips with all their cameras, of which some frames are drawn; some others have their depth, the rest nothing."""
    some = maker.rendered(
        replace(drawn, cam_to_world=drawn.cam_to_world[:, frames], intrinsics=drawn.intrinsics[:, frames])
    )
    b, count = drawn.cam_to_world.shape[:2]
    pictures = some.frames.new_full((b, count, *some.frames.shape[2:]), -1.0)
    depth = some.depth_m.new_zeros(b, count, *some.depth_m.shape[2:])
    pictures[:, frames], depth[:, frames] = some.frames, some.depth_m
    for frame in with_depth:
        if frame not in frames:
            at = slice(frame, frame + 1)
            far = render_depth(drawn.scenes, drawn.cam_to_world[:, at], drawn.intrinsics[:, at], *maker.worlds.size)
            depth[:, at] = far.clamp(max=SKY_DEPTH_M)
    return Clips(
        frames=pictures,
        depth_m=depth,
        world_to_cam=torch.linalg.inv(drawn.cam_to_world),
        intrinsics=drawn.intrinsics,
        captions=some.captions,
    )
