"""The second half of a world model: a clip becomes Gaussians by a lifter, fusion, and on CUDA a refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lyra_core.errors import RecipeError
from lyra_core.gaussians.lifters import Lifter
from lyra_core.gaussians.reconstruct import (
    ReadyToFuse,
    Reconstruction,
    ReconstructionConfig,
    ReconstructionReport,
    fuse_video,
    lift_video,
    reconstruct,
)
from lyra_core.gaussians.refine import RefineConfig, refine
from lyra_core.values import Gaussians, VideoClip

OnReport = Callable[[ReconstructionReport], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructor:
    """Lifts clips.

    Attributes:
        lifter: makes geometry of chunks.
        config: every choice of the fusion.
        refine: how finished Gaussians are fitted to the frames, or None; needs CUDA.
        device: where the refinement runs.

    Raises:
        RecipeError: a refinement without CUDA.
    """

    lifter: Lifter
    config: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    refine: RefineConfig | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.refine is not None and self.device.type != "cuda":
            raise RecipeError(
                f"refinement runs on CUDA, found device {self.device}; --set reconstruction.is_refined=false leaves it "
                "out (a world of its own id)"
            )

    def __call__(
        self, clip: VideoClip, *, chunk_dir: str | Path | None = None, on_report: OnReport | None = None
    ) -> Gaussians:
        """Gaussians of a clip in the frame of its requested cameras, on the CPU.

        Args:
            clip: frames with requested cameras.
            chunk_dir: finished chunks, from which a killed call goes on; None keeps nothing.
            on_report: told how it went.

        Raises:
            as lyra_core.gaussians.reconstruct.reconstruct and lyra_core.gaussians.refine.refine.
        """
        return self._told(
            reconstruct(clip, lifter=self.lifter, config=self.config, chunk_dir=chunk_dir), clip, on_report
        )

    def lift(self, clip: VideoClip, chunk_dir: Path) -> ReadyToFuse | None:
        """What of a call needs the networks; None where the rest needs their device too."""
        return None if self.refine is not None else lift_video(clip, chunk_dir, lifter=self.lifter, config=self.config)

    def fuse(self, ready: ReadyToFuse, clip: VideoClip, on_report: OnReport | None = None) -> Gaussians:
        """The rest of a call, on the CPU."""
        return self._told(fuse_video(ready, self.config), clip, on_report)

    def _told(self, made: Reconstruction, clip: VideoClip, on_report: OnReport | None) -> Gaussians:
        gaussians, report = made.gaussians, made.report
        if self.refine is not None:
            refined = refine(gaussians.to(self.device), clip, self.refine, engine="gsplat")
            gaussians = refined.gaussians.to("cpu")
            gain = refined.psnr_after_db - refined.psnr_before_db
            report = replace(report, is_refined=refined.is_kept, refine_gain_db=gain)
        if on_report is not None:
            on_report(report)
        return gaussians
