"""From a video with cameras to one bounded set of 3D Gaussians, however long the video.

frames, requested cameras
    | keyframes: where the picture changed          keyframes.py
    v
chunks that fit memory, overlapping                 keyframes.py
    | lift: depth, confidence, sky (+ Gaussians)    lifters.py, chunked_lift.py   -> stored, resumable
    v
chunk scales from overlaps, cameras from a gate     fuse.py
    | frame by frame: drop duplicates, add the new  duplicates.py, pixel_footprint.py
    v
fused set, never above its limit                    coarsen.py
    | floaters, needles, lone and faint ones go     prune.py
    v
output tier, colours fitted to frames               tiers.py, backproject.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Int
from torch import Tensor

from lyra_core.config.bounds import Bounds
from lyra_core.config.reconstruction import FusionOptions, tier_size
from lyra_core.errors import CameraPathError, FrameError
from lyra_core.gaussians.backing import build_backing, close_holes, is_unseen
from lyra_core.gaussians.backproject import fit_colors
from lyra_core.gaussians.camera_gate import choose_cameras
from lyra_core.gaussians.chunked_fuse import ChunkedFusionConfig, Fusion, evenly, fuse_chunks
from lyra_core.gaussians.chunked_lift import LiftedVideo, Progress, lift_chunks
from lyra_core.gaussians.clip_source import ClipSource, MemoryClip
from lyra_core.gaussians.coarsen import PointSet
from lyra_core.gaussians.depth_anything.budget import Budget, run_within
from lyra_core.gaussians.duplicates import DuplicateConfig
from lyra_core.gaussians.keyframes import KeyframeConfig, choose_keyframes, typical_depth_m
from lyra_core.gaussians.lifters import Lifter
from lyra_core.gaussians.pixel_footprint import FootprintConfig
from lyra_core.gaussians.prune import PruneConfig, prune
from lyra_core.gaussians.tiers import reduce_to
from lyra_core.geometry.alignment import classify_motion
from lyra_core.values import CameraPath, Gaussians, VideoClip

BACKED_VIEWS = 3  # anchors behind whose outlines the scene is continued
BACKING_SHARE = 0.5  # of the tier, at most
PROBE_FRAMES = 4  # frames whose depth, where the clip has it, tells how large the scene is


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionConfig(FusionOptions):
    """Everything that changes the result: a user's options, and the settings of each step.

    Attributes:
        keyframes: which frames are lifted.
        duplicates: when two Gaussians are one.
        footprint: shape of splats made from pixels.
        prune: what is removed.
        working_ratio: limit of the set while frames are added, in output sizes.
        judge_views: small depth maps against which floaters are found.
        sample_views: frames for contributions and colours.
    """

    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    duplicates: DuplicateConfig = field(default_factory=DuplicateConfig)
    footprint: FootprintConfig = field(default_factory=FootprintConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    working_ratio: Annotated[float, Bounds(ge=1)] = 2.0
    judge_views: Annotated[int, Bounds(ge=1)] = 32
    sample_views: Annotated[int, Bounds(ge=1)] = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionReport:
    """How a reconstruction went, for the catalog and for people.

    Attributes:
        num_frames: of the video.
        num_keyframes: of them lifted.
        num_chunks: lifted together.
        resumed_chunks: found on disk.
        chunk_frames: most keyframes of a chunk, after memory had its say.
        lifter: its name.
        cameras: which cameras the Gaussians are reconstructed with.
        residual_deg: requested against recovered cameras, median; None if none were recovered.
        residual_percent: of the path's length, likewise.
        is_deviating: the video does not follow its cameras.
        chunk_scales: factors that joined the chunks.
        offered: pixels or Gaussians looked at.
        duplicates: of them already there.
        replaced: Gaussians that a finer or surer view replaced.
        non_finite: dropped for numbers that are none.
        coarsenings: how often the set outgrew its limit.
        faint, needles, floaters, lone: pruned.
        num_gaussians: of the output.
        coverage: share of the sample views' pixels that are drawn, 0 to 1.
        seconds: wall time.
        is_refined: whether a refinement was kept; None where none ran.
        refine_gain_db: what it gained on held-out frames, kept or not.
    """

    num_frames: int
    num_keyframes: int
    num_chunks: int
    resumed_chunks: int
    chunk_frames: int
    lifter: str
    cameras: str
    residual_deg: float | None
    residual_percent: float | None
    is_deviating: bool
    chunk_scales: tuple[float, ...]
    offered: int
    duplicates: int
    replaced: int
    non_finite: int
    coarsenings: int
    faint: int
    needles: int
    floaters: int
    lone: int
    num_gaussians: int
    coverage: float
    seconds: float
    is_refined: bool | None = None
    refine_gain_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyToFuse:
    """A video whose chunks are lifted: no network is needed any more.

    Attributes:
        source: the video.
        keyframes: frames that were lifted, rising. [t]
        lifted: their geometry, stored in a folder that must be kept until it is fused.
        chunk_frames: most keyframes of a chunk, after memory had its say.
        lifter: name of what lifted them.
        seconds: wall time so far.
    """

    source: ClipSource
    keyframes: Int[Tensor, " t"]
    lifted: LiftedVideo
    chunk_frames: int
    lifter: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Gaussians in the frame of the requested cameras, and how they came about."""

    gaussians: Gaussians
    report: ReconstructionReport


def reconstruct(
    clip: VideoClip | ClipSource,
    *,
    lifter: Lifter,
    config: ReconstructionConfig = ReconstructionConfig(),
    chunk_dir: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """Lift a video to 3D Gaussians.

    Args:
        clip: frames with requested cameras; a ClipSource that is not in memory keeps memory independent of length.
        lifter: makes geometry of chunks.
        config: what is wanted.
        chunk_dir: stored chunks. A killed reconstruction called again with the same folder goes on where it was and
            gives equal bytes. None uses a temporary folder.
        on_progress: called with (stage, done, total); stages are "lift", "fuse" and "colour".

    Raises:
        FrameError: fewer than two frames.
        CameraPathError: cameras that do not move, where the lifter takes its scale from them.
        DepthError: depth that is not finite.
        ReconstructionError: no pixel of known depth, nothing but sky, or no Gaussian left.
        OutOfMemoryError: two frames at a time do not fit.
        StoreError: chunk_dir cannot be written or holds a damaged chunk.
    """
    with tempfile.TemporaryDirectory(prefix="lyra-chunks-") as temporary:
        folder = Path(temporary) if chunk_dir is None else Path(chunk_dir)
        ready = lift_video(clip, folder, lifter=lifter, config=config, on_progress=on_progress)
        return fuse_video(ready, config, on_progress)


def lift_video(
    clip: VideoClip | ClipSource,
    folder: Path,
    *,
    lifter: Lifter,
    config: ReconstructionConfig = ReconstructionConfig(),
    on_progress: Progress | None = None,
) -> ReadyToFuse:
    """The first half of `reconstruct`: what needs the lifter's networks. Arguments and errors as there."""
    started = time.perf_counter()
    source: ClipSource = MemoryClip(clip) if isinstance(clip, VideoClip) else clip
    _require_liftable(source.cameras, lifter)
    keyframes = choose_keyframes(source.cameras, _scene_depth_m(source), config.keyframes)

    def run(budget: Budget) -> tuple[LiftedVideo, Budget]:
        return lift_chunks(source, keyframes, lifter, budget, folder, on_progress), budget

    lifted, budget = run_within(Budget(views=min(config.chunk_frames, len(keyframes))), run)
    return ReadyToFuse(
        source=source,
        keyframes=keyframes,
        lifted=lifted,
        chunk_frames=budget.views,
        lifter=lifter.name,
        seconds=time.perf_counter() - started,
    )


def fuse_video(
    ready: ReadyToFuse, config: ReconstructionConfig = ReconstructionConfig(), on_progress: Progress | None = None
) -> Reconstruction:
    """The second half of `reconstruct`, on the CPU. Arguments and errors as there."""
    started = time.perf_counter()
    source, keyframes, lifted = ready.source, ready.keyframes, ready.lifted
    stand = choose_cameras(source.cameras[keyframes], lifted.recovered, config.cameras, config.gate)
    fusion = fuse_chunks(source, lifted, stand.cameras, _fusion_config(config), on_progress)
    points, removed = prune(fusion.points, fusion.judges, config.prune)
    sampled = evenly(len(keyframes), config.sample_views)
    views = stand.cameras[sampled]
    gaussians = _bounded(points, fusion, source, views, config)
    gaussians, coverage = _fit_colors(gaussians, source, keyframes[sampled], views, config, on_progress)
    counts = fusion.counts
    report = ReconstructionReport(
        num_frames=len(source.cameras),
        num_keyframes=len(keyframes),
        num_chunks=len(lifted.chunks),
        resumed_chunks=lifted.resumed,
        chunk_frames=ready.chunk_frames,
        lifter=ready.lifter,
        cameras=stand.choice,
        residual_deg=stand.residual_deg,
        residual_percent=stand.residual_percent,
        is_deviating=stand.is_beyond(config.deviation),
        chunk_scales=tuple(fusion.scales),
        offered=counts.offered,
        duplicates=counts.duplicates,
        replaced=counts.replaced,
        non_finite=counts.non_finite,
        coarsenings=counts.coarsenings,
        faint=removed.faint,
        needles=removed.needles,
        floaters=removed.floaters,
        lone=removed.lone,
        num_gaussians=len(gaussians),
        coverage=coverage,
        seconds=ready.seconds + time.perf_counter() - started,
    )
    return Reconstruction(gaussians=gaussians, report=report)


def _require_liftable(cameras: CameraPath, lifter: Lifter) -> None:
    if len(cameras) < 2:
        raise FrameError(
            f"a reconstruction needs at least two frames, found {len(cameras)}; lift a single image with "
            "lyra_core.gaussians.pixel_footprint.lift_pixels"
        )
    if lifter.needs_baseline and classify_motion(cameras.centers_m) == "static":
        raise CameraPathError(
            f"the lifter {lifter.name} takes its scale from cameras that move, and all {len(cameras)} stand in one "
            "place; move them, or lift with metric depth (the clip's own, or a nested network)"
        )


def _bounded(
    points: PointSet, fusion: Fusion, source: ClipSource, views: CameraPath, config: ReconstructionConfig
) -> Gaussians:
    """The output's Gaussians, holes closed and backed where that is wanted, within the tier."""
    size = tier_size(config.tier)
    if not fusion.anchors:
        return reduce_to(points, size, views).gaussians
    points = close_holes(points, fusion.anchors, source, config.footprint)
    outlined = [fusion.anchors[i] for i in evenly(len(fusion.anchors), BACKED_VIEWS).tolist()]
    backing = build_backing(outlined, source, fusion.sky_m)
    backing = backing[is_unseen(backing, fusion.anchors)][: int(BACKING_SHARE * size)]
    return Gaussians.concatenate([reduce_to(points, size - len(backing), views).gaussians, backing])


def _scene_depth_m(source: ClipSource) -> float:
    probe = source.window(evenly(len(source.cameras), PROBE_FRAMES))
    depth = probe.depth_m
    if depth is not None and probe.sky is not None:
        depth = torch.where(probe.sky, 0.0, depth)
    return typical_depth_m(depth, source.cameras)


def _fusion_config(config: ReconstructionConfig) -> ChunkedFusionConfig:
    return ChunkedFusionConfig(
        max_gaussians=int(config.working_ratio * tier_size(config.tier)),
        duplicates=config.duplicates,
        footprint=config.footprint,
        sky=config.sky,
        sky_ratio=config.sky_ratio,
        judge_views=config.judge_views,
        anchor_views=config.anchor_views,
    )


def _fit_colors(
    gaussians: Gaussians,
    source: ClipSource,
    frames: Int[Tensor, " m"],
    cameras: CameraPath,
    config: ReconstructionConfig,
    on_progress: Progress | None,
) -> tuple[Gaussians, float]:
    """Gaussians with fitted colours, and the share of the sample views that they cover."""
    coverage = 0.0
    for sweep in range(max(1, config.color_passes)):
        fit = fit_colors(gaussians, _pictures(source, frames), cameras)
        coverage = fit.coverage
        if config.color_passes:
            gaussians = fit.gaussians
        if on_progress is not None:
            on_progress("colour", sweep + 1, max(1, config.color_passes))
    return gaussians, coverage


def _pictures(source: ClipSource, frames: Int[Tensor, " m"]) -> Iterator[Tensor]:
    for frame in frames:
        yield source.window(frame[None]).frames[0].float() / 255.0
