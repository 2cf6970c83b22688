"""Output of bounded size: a viewer on a phone wants 100 thousand Gaussians, a desktop 2 million."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.config.reconstruction import TIERS, tier_size
from lyra_core.gaussians.backproject import contributions
from lyra_core.gaussians.coarsen import PointSet, coarsen_to
from lyra_core.values import CameraPath, Gaussians

# Below this many pixels' worth over all sample views a Gaussian is invisible in practice.
MIN_CONTRIBUTION = 0.02


def reduce_to(points: PointSet, max_count: int, cameras: CameraPath) -> PointSet:
    """At most max_count Gaussians: first those go that no sample view shows, then neighbours are merged.

    Merging gives up detail evenly and leaves no holes; dropping by contribution alone would tear surfaces open.

    Args:
        points: world frame.
        max_count: of the result.
        cameras: sample views.
    """
    seen = contributions(points.gaussians, cameras)
    if len(points) > max_count:
        visible = seen >= MIN_CONTRIBUTION
        if bool(visible.any()):
            points, seen = points[visible], seen[visible]
    if len(points) <= max_count:
        return points
    coarse, _ = coarsen_to(points, max_count)
    if len(coarse) <= max_count:
        return coarse
    best = top_contributors(contributions(coarse.gaussians, cameras), max_count)
    return coarse[best]


def top_contributors(seen: Float[Tensor, " n"], count: int) -> Tensor:
    """Indices of the largest contributions, rising; of equal ones the first."""
    return torch.sort(seen, descending=True, stable=True).indices[:count].sort().values


def make_tiers(
    gaussians: Gaussians, cameras: CameraPath, tiers: tuple[str | int, ...] = tuple(TIERS)
) -> dict[str | int, Gaussians]:
    """Smaller versions of finished Gaussians; a tier that already fits is the set itself.

    Args:
        gaussians: world frame.
        cameras: sample views, typically a few dozen of the path.
        tiers: names, or numbers of Gaussians.
    """
    # A disc made from a pixel has two extents of about half its spacing.
    spacing = 2.0 * gaussians.scales.sort(dim=1).values[:, 1]
    points = PointSet(gaussians=gaussians, spacing_m=spacing.clamp_min(1e-12), confidence=gaussians.opacities)
    return {tier: reduce_to(points, tier_size(tier), cameras).gaussians for tier in tiers}
