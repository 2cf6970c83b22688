"""Stage 5: weight-free measurements and the recipe's gates; a world below a gate is committed, but not accepted."""

from __future__ import annotations

from lyra_core.gates import Gate
from lyra_core.gaussians.reconstruct import ReconstructionReport
from lyra_core.quality import Quality, accept, failed_gates, measure
from lyra_core.values import Gaussians, VideoClip
from tasks.recipe import Recipe


def measure_quality(clip: VideoClip, gaussians: Gaussians, recipe: Recipe) -> Quality | None:
    """Measure held-out views, or nothing where the recipe turns quality off."""
    if recipe.quality_views == 0:
        return None
    return measure(clip, gaussians, max_views=recipe.quality_views)


def reject_reasons(quality: Quality | None, recipe: Recipe, report: ReconstructionReport | None = None) -> list[str]:
    """The gates a world fails, as sentences; empty means accepted."""
    reasons = []
    if report is not None and report.is_deviating:
        reasons.append(
            f"the video departs from its cameras by {report.residual_deg:.1f} degrees and "
            f"{report.residual_percent:.0f} % of the path, more than reconstruction.deviation allows"
        )
    if quality is None:
        return reasons
    gates = {"psnr_db": Gate(min=recipe.min_psnr_db), "coverage_frac": Gate(min=recipe.min_coverage)}
    return reasons + accept(quality, gates)[1] + failed_gates(quality, recipe.gates)
