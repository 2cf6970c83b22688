"""The first half of a reconstruction: lift a video chunk by chunk, keep each chunk on disk, measure what joins them.

Shape legend: t keyframes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra_core.errors import DepthError, FrameError, ReconstructionError
from lyra_core.gaussians.chunk_store import lift_key, load_lift, save_lift
from lyra_core.gaussians.clip_source import ClipSource
from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.gaussians.fuse import overlap_ratio
from lyra_core.gaussians.keyframes import owned_frames, plan_chunks
from lyra_core.gaussians.lifters import Lift, Lifter
from lyra_core.geometry.alignment import quantile
from lyra_core.values import VideoClip

FAR_QUANTILE = 0.98
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftedVideo:
    """All chunks of a video, lifted; depths lie on disk.

    Attributes:
        keyframes: frames that were lifted. [t]
        chunks: keyframes of each chunk, overlapping.
        owned: keyframes each chunk gives to the fused set, not overlapping.
        log_ratios: log of the depth ratio of each chunk onto the one before, None where unknown.
        recovered: cameras found in the keyframes, or None. [t 4 4]
        far_m: depth that few solid pixels exceed.
        resumed: chunks that were found on disk.
        paths: where each chunk lies.
    """

    keyframes: Int[Tensor, " t"]
    chunks: list[slice]
    owned: list[slice]
    log_ratios: list[float | None]
    recovered: Float[Tensor, "t 4 4"] | None
    far_m: float
    resumed: int
    paths: list[Path]

    def lifts(self) -> Iterator[Lift]:
        """The chunks, one in memory at a time."""
        for path in self.paths:
            yield load_lift(path)


def lift_chunks(
    source: ClipSource,
    keyframes: Int[Tensor, " t"],
    lifter: Lifter,
    budget: Budget,
    folder: Path,
    on_progress: Progress | None = None,
) -> LiftedVideo:
    """Lift every chunk that `folder` does not hold yet.

    Args:
        source: the video.
        keyframes: frames to lift, rising. [t]
        lifter: makes geometry.
        budget: at most `views` keyframes a chunk.
        folder: stored chunks; those of other videos or settings are neither used nor touched.
        on_progress: called with ("lift", chunks done, chunks).

    Raises:
        FrameError: depth of another size than the frames.
        DepthError: NaN or infinity in a lifter's depth.
        ReconstructionError: no pixel of any keyframe has a depth, or all of them are sky.
    """
    chunks = plan_chunks(len(keyframes), max(2, min(budget.views, len(keyframes))))
    owned = owned_frames(chunks)
    paths, log_ratios, recovered = [], [], []
    far_m, resumed, solid, sky = 0.0, 0, 0, 0
    before: Lift | None = None
    for k, chunk in enumerate(chunks):
        clip = source.window(keyframes[chunk])
        reference = None if before is None else _carried(before, chunks[k - 1], chunk)
        path = folder / f"chunk-{k:03d}-{lift_key(lifter.name, clip, reference)}.safetensors"
        if path.exists():
            lift = load_lift(path)
            resumed += 1
        else:
            lift = lifter.lift(clip, reference, budget)
            _require_sound(lift, clip, keyframes[chunk])
            save_lift(lift, path)
        if reference is not None:
            shared = chunks[k - 1].stop - chunk.start
            log_ratios.append(
                overlap_ratio(lift.depth_m[:shared], reference[:shared], lift.confidence[:shared], lift.sky[:shared])
            )
        if lift.recovered is not None:
            recovered.append(lift.recovered[owned[k].start - chunk.start : owned[k].stop - chunk.start])
        known = lift.depth_m[(lift.depth_m > 0) & ~lift.sky]
        solid, sky = solid + len(known), sky + int(lift.sky.sum())
        if len(known):
            far_m = max(far_m, float(quantile(known[:: max(1, len(known) // 500_000)], FAR_QUANTILE)))
        before = lift
        paths.append(path)
        if on_progress is not None:
            on_progress("lift", k + 1, len(chunks))
    _require_something(solid, sky, len(keyframes))
    return LiftedVideo(
        keyframes=keyframes,
        chunks=chunks,
        owned=owned,
        log_ratios=log_ratios,
        recovered=torch.cat(recovered) if len(recovered) == len(chunks) else None,
        far_m=far_m,
        resumed=resumed,
        paths=paths,
    )


def _carried(before: Lift, its_chunk: slice, chunk: slice) -> Tensor:
    """What the chunk before found for this chunk's frames, 0 elsewhere."""
    shared = its_chunk.stop - chunk.start
    depth = torch.where(before.sky, 0.0, before.depth_m)[len(before.depth_m) - shared :]
    return torch.cat([depth, depth.new_zeros(chunk.stop - chunk.start - shared, *depth.shape[1:])])


def _require_sound(lift: Lift, clip: VideoClip, frames: Tensor) -> None:
    wanted = tuple(clip.frames.shape[:3])
    for name in ("depth_m", "confidence", "sky"):
        found = tuple(getattr(lift, name).shape)
        if found != wanted:
            raise FrameError(f"a lifter must give {name} of the frames' size {wanted}, found {found}")
    bad = ~torch.isfinite(lift.depth_m).flatten(1).all(1)
    if bool(bad.any()):
        raise DepthError(
            f"depth must be finite, found NaN or infinity in frames {frames[bad].tolist()[:8]}; "
            "mark unknown pixels with 0, or check the estimator's weights"
        )
    if bool((lift.depth_m < 0).any()):
        raise DepthError("depth must not be negative (0 marks unknown pixels); check the camera frame's z axis")


def _require_something(solid: int, sky: int, num_frames: int) -> None:
    if solid:
        return
    if sky:
        raise ReconstructionError(
            f"all {num_frames} keyframes show nothing but sky, so there is no surface to lift; "
            "give a video that sees something, or check the sky mask"
        )
    raise ReconstructionError(
        f"none of the {num_frames} keyframes has a pixel of known depth; check the clip's depth_m or the estimator"
    )
