"""Stage 3: the video is lifted to 3D Gaussians."""

from __future__ import annotations

from pathlib import Path

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.reconstruct import ReconstructionReport
from lyra_core.values import Gaussians, VideoClip
from lyra_core.world_models.protocol import WorldModel
from tasks.stages import Stage


def lift_to_gaussians(
    model: WorldModel, clip: VideoClip, scratch: Path
) -> tuple[Gaussians, ReconstructionReport | None]:
    """Reconstruct, and never let an empty set through silently.

    Args:
        model: loaded by the worker.
        clip: with its requested cameras.
        scratch: the world's own folder, in which a model keeps finished chunks.

    Returns:
        the Gaussians, and how it went where the model tells.

    Raises:
        ReconstructionError: no Gaussians came out.
    """
    reports: list[ReconstructionReport] = []
    gaussians = model.reconstruct(clip, chunk_dir=scratch, on_report=reports.append)
    if len(gaussians) == 0:
        raise ReconstructionError("wanted Gaussians from the clip, found none; look at its depth and sky mask")
    return gaussians, reports[-1] if reports else None


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
