"""Stage 4: weight-free measurements and the recipe's gates; a world below a gate is committed, but not accepted."""

from __future__ import annotations

from lyra_core.quality import Quality, measure
from lyra_core.values import Gaussians, VideoClip
from tasks.recipe import Recipe


def measure_quality(clip: VideoClip, gaussians: Gaussians, recipe: Recipe) -> Quality | None:
    """Measure held-out views, or nothing where the recipe turns quality off."""
    if recipe.quality_views == 0:
        return None
    return measure(clip, gaussians, max_views=recipe.quality_views)


def reject_reasons(quality: Quality | None, recipe: Recipe) -> list[str]:
    """The gates a world fails, as sentences; empty means accepted."""
    if quality is None:
        return []
    reasons = []
    if quality.psnr_db < recipe.min_psnr_db:
        reasons.append(f"psnr_db {quality.psnr_db:.2f} is below {recipe.min_psnr_db:g}")
    if quality.coverage_frac < recipe.min_coverage:
        reasons.append(f"coverage_frac {quality.coverage_frac:.3f} is below {recipe.min_coverage:g}")
    return reasons
