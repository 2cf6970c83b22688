"""Stage 3: the video is lifted to 3D Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.reconstruct import ReconstructionReport
from lyra_core.values import Gaussians, VideoClip
from lyra_core.world_models.protocol import TwoStepModel, WorldModel
from tasks.stages import Stage


@dataclass(frozen=True, slots=True)
class Lifted:
    """A reconstruction on whose way the model's networks are done.

    Attributes:
        rest: what is left to do, on the CPU, or nothing but giving what was made.
    """

    rest: Callable[[], tuple[Gaussians, ReconstructionReport | None]]


def begin_gaussians(model: WorldModel, clip: VideoClip, scratch: Path) -> Lifted:
    """What of a reconstruction needs the model's networks.

    Args:
        model: loaded by the worker.
        clip: with its requested cameras.
        scratch: the world's own folder, in which a model keeps finished chunks; to be kept until the rest is done.
    """
    reports: list[ReconstructionReport] = []
    if isinstance(model, TwoStepModel):
        two_steps, ready = model, model.lift(clip, scratch)
        if ready is not None:
            return Lifted(lambda: (two_steps.fuse(ready, clip, reports.append), reports[-1]))
    gaussians = model.reconstruct(clip, chunk_dir=scratch, on_report=reports.append)
    return Lifted(lambda: (gaussians, reports[-1] if reports else None))


def finish_gaussians(lifted: Lifted) -> tuple[Gaussians, ReconstructionReport | None]:
    """The rest of a reconstruction, and never an empty set silently.

    Returns:
        the Gaussians, and how it went where the model tells.

    Raises:
        ReconstructionError: no Gaussians came out.
    """
    gaussians, report = lifted.rest()
    if len(gaussians) == 0:
        raise ReconstructionError("wanted Gaussians from the clip, found none; look at its depth and sky mask")
    return gaussians, report


def apply_stage(name: str, stage: Stage, clip: VideoClip, gaussians: Gaussians) -> Gaussians:
    """Run a stage of one's own on the Gaussians.

    Raises:
        ReconstructionError: it returned something else, or no Gaussians. LyraError: its own.
    """
    kept = stage(clip, gaussians)
    if not isinstance(kept, Gaussians) or len(kept) == 0:
        type_name = "none" if isinstance(kept, Gaussians) else type(kept).__name__
        raise ReconstructionError(
            f"stage {name!r}: wanted the Gaussians to keep, found {type_name}; see docs/extending.md"
        )
    return kept
