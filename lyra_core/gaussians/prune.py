"""Gaussians that do no good: not finite, faint, needles, floating in free space, or alone.

Every test is free of scale: lengths are compared with a Gaussian's own size, depths as ratios.

Shape legend: n Gaussians, v views, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import RecipeError, ReconstructionError
from lyra_core.gaussians.coarsen import PointSet, cell_keys
from lyra_core.gaussians.duplicates import NEAR_PLANE, View, project_points
from lyra_core.values import Gaussians

# Grids at steps of two: a Gaussian is judged on the grid whose cell is at least its reach.
MAX_GRIDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """What is removed.

    Attributes:
        min_opacity: fainter ones.
        max_needle_ratio: largest over middle extent above which a Gaussian is a needle.
        free_space_ratio: how much nearer than a view's depth a Gaussian must be to hang in its free space.
        min_violations: views whose free space it must hang in; views that see it on their surface count against.
        isolation_sigmas: reach, in largest extents, within which it must have neighbours.
        min_neighbours: how many.
    """

    min_opacity: float = 0.05
    max_needle_ratio: float = 50.0
    free_space_ratio: float = 0.05
    min_violations: int = 3
    isolation_sigmas: float = 10.0
    min_neighbours: int = 2

    def __post_init__(self) -> None:
        if not (0 <= self.min_opacity < 1 and self.max_needle_ratio > 1 and 0 < self.free_space_ratio < 1):
            raise RecipeError(
                "pruning needs min_opacity in [0, 1), max_needle_ratio > 1 and free_space_ratio in (0, 1), "
                f"found {self}"
            )
        if self.min_violations < 1 or self.isolation_sigmas <= 0 or self.min_neighbours < 0:
            raise RecipeError(
                f"pruning needs min_violations >= 1, isolation_sigmas > 0 and min_neighbours >= 0, found {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many went, and why: each counts for the first reason that applies."""

    faint: int
    needles: int
    floaters: int
    lone: int


def prune(points: PointSet, judges: Sequence[View], config: PruneConfig = PruneConfig()) -> tuple[PointSet, Removed]:
    """Remove what does no good.

    Args:
        points: world frame.
        judges: small depth maps, see shrunk_view.
        config: thresholds.

    Raises:
        ReconstructionError: nothing would be left.
    """
    faint = points.gaussians.opacities < config.min_opacity
    kept = points[~faint]
    needles = is_needle(kept.gaussians.scales, config.max_needle_ratio)
    kept = kept[~needles]
    floating = floaters(kept.gaussians.means, judges, config)
    kept = kept[~floating]
    lone = isolated(kept.gaussians.means, kept.gaussians.scales, config)
    removed = Removed(
        faint=int(faint.sum()), needles=int(needles.sum()), floaters=int(floating.sum()), lone=int(lone.sum())
    )
    kept = kept[~lone]
    if len(kept) == 0:
        raise ReconstructionError(
            f"pruning left none of {len(points)} Gaussians ({removed.faint} faint, {removed.needles} needles, "
            f"{removed.floaters} floating, {removed.lone} alone); the depth is inconsistent with the cameras, or the "
            "confidence is too low"
        )
    return kept, removed


def is_finite(gaussians: Gaussians) -> Bool[Tensor, " n"]:
    """Every number finite, every scale positive, opacity within 0 to 1 and a quaternion of some length."""
    fine = torch.ones(len(gaussians), dtype=torch.bool, device=gaussians.means.device)
    for layer in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh):
        fine &= torch.isfinite(layer.sum(tuple(range(1, layer.ndim)))) if layer.ndim > 1 else torch.isfinite(layer)
    fine &= (gaussians.scales > 0).all(1) & (gaussians.opacities >= 0) & (gaussians.opacities <= 1)
    return fine & (gaussians.quats.norm(dim=1) > 1e-8)


def is_needle(scales: Float[Tensor, "n 3"], max_ratio: float) -> Bool[Tensor, " n"]:
    """Long and thin in both other directions; flat discs are fine."""
    ordered = scales.sort(dim=1).values
    return ordered[:, 2] > max_ratio * ordered[:, 1]


def floaters(
    means: Float[Tensor, "n 3"], views: Sequence[View], config: PruneConfig = PruneConfig()
) -> Bool[Tensor, " n"]:
    """Gaussians that hang in front of what several views see, in more views than see them on a surface.

    Args:
        means: world frame. [n 3]
        views: judges, depth 0 where they know nothing; see `shrunk_view` for small ones that stay conservative.
        config: thresholds.
    """
    violations = torch.zeros(len(means), dtype=torch.int16)
    sightings = torch.zeros(len(means), dtype=torch.int16)
    for view in views:
        height, width = view.depth_m.shape
        u, v, z = project_points(means, view.world_to_cam, view.intrinsics)
        inside = (z > NEAR_PLANE) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        row, column = v.floor().long().clamp(0, height - 1), u.floor().long().clamp(0, width - 1)
        seen = view.depth_m[row, column]
        known = inside & (seen > 0)
        in_front = z < (1.0 - config.free_space_ratio) * seen
        violations += (known & in_front).to(torch.int16)
        sightings += (known & ~in_front & (z < (1.0 + config.free_space_ratio) * seen)).to(torch.int16)
    return (violations >= config.min_violations) & (violations > sightings)


def shrunk_view(view: View, factor: int) -> View:
    """A view at a fraction of its size whose every pixel keeps the nearest depth it covers.

    Nothing then counts as floating in free space because a small pixel forgot a thin thing in front. Blocks with an
    unknown pixel are unknown.
    """
    height, width = view.depth_m.shape
    rows, columns = height // factor, width // factor
    if factor <= 1 or rows < 1 or columns < 1:
        return view
    cut = view.depth_m[: rows * factor, : columns * factor][None, None]
    # One more pixel around each block: a splat's centre is not exactly at its pixel's centre.
    nearest = -functional.max_pool2d(-cut, factor + 2, stride=factor, padding=1)
    trust = functional.avg_pool2d(view.confidence[: rows * factor, : columns * factor][None, None], factor)
    shrink = torch.tensor([[1.0 / factor], [1.0 / factor], [1.0]], dtype=torch.float64)
    return View(
        depth_m=nearest[0, 0].clamp_min(0.0),
        confidence=trust[0, 0],
        world_to_cam=view.world_to_cam,
        intrinsics=view.intrinsics.double() * shrink,
    )


def isolated(
    means: Float[Tensor, "n 3"], scales: Float[Tensor, "n 3"], config: PruneConfig = PruneConfig()
) -> Bool[Tensor, " n"]:
    """Gaussians with too few others within some of their own extents.

    Neighbours are counted on a grid whose cells are as long as the reach or up to twice: those in the own and the 26
    cells around it, so none within reach is missed.
    """
    reach = config.isolation_sigmas * scales.amax(1).double()
    level = reach.clamp_min(1e-12).log2().ceil().long()
    alone = torch.zeros(len(means), dtype=torch.bool)
    origin = means.double().amin(0) if len(means) else means.new_zeros(3).double()
    for grid in level.unique().tolist()[:MAX_GRIDS]:
        cells = ((means.double() - origin) / 2.0**grid).floor().long()
        keys, counts = cell_keys(cells).unique(return_counts=True)
        asked = (level == grid).nonzero()[:, 0]
        neighbour = torch.full((len(asked),), -1, dtype=torch.int64)  # not itself
        for offset in torch.cartesian_prod(*[torch.arange(-1, 2)] * 3):
            wanted = cell_keys(cells[asked] + offset)
            at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            neighbour += torch.where(keys[at] == wanted, counts[at], 0)
        alone[asked] = neighbour < config.min_neighbours
    return alone
