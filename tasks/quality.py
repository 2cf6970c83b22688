"""Stage 4: weight-free measurements and the recipe's gates; a world below a gate is committed, but not accepted."""

from __future__ import annotations

from lyra_core.quality import Gate, Quality, accept, measure
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
    gates = {"psnr_db": Gate(min=recipe.min_psnr_db), "coverage_frac": Gate(min=recipe.min_coverage)}
    return accept(quality, gates)[1]
