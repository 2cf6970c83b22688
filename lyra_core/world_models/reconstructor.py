"""The second half of a world model: a clip becomes Gaussians by a lifter, fusion, and on CUDA a refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lyra_core.errors import RecipeError
from lyra_core.gaussians.lifters import Lifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig, ReconstructionReport, reconstruct
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
        made = reconstruct(clip, lifter=self.lifter, config=self.config, chunk_dir=chunk_dir)
        gaussians, report = made.gaussians, made.report
        if self.refine is not None:
            refined = refine(gaussians.to(self.device), clip, self.refine, engine="gsplat")
            gaussians = refined.gaussians.to("cpu")
            gain = refined.psnr_after_db - refined.psnr_before_db
            report = replace(report, is_refined=refined.is_kept, refine_gain_db=gain)
        if on_report is not None:
            on_report(report)
        return gaussians
