"""Puts the frames of all chunks together: one scale for each chunk, one Gaussian for each piece of surface.

    chunk scales <- ratios of depth on shared frames, held near 1 by the requested cameras (no open chain)
    for each frame: compare with what is there -> drop what the frame shows better -> add what it shows anew

Shape legend: c chunks, n Gaussians, t frames, h w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from lyra_core.errors import DepthError
from lyra_core.gaussians.coarsen import PointSet, coarsen_to
from lyra_core.gaussians.duplicates import DuplicateConfig, View, compare, project_points
from lyra_core.gaussians.pixel_footprint import FootprintConfig, lift_pixels
from lyra_core.gaussians.prune import is_finite
from lyra_core.geometry.alignment import scale_from_overlap
from lyra_core.values import Gaussians, Part

# How much one chunk's camera-given scale is trusted against a ratio measured on shared pixels.
PRIOR_WEIGHT = 0.05
# Ratios beyond this are a failed lift, not drift.
MAX_LOG_RATIO = 1.0
DUPLICATES = DuplicateConfig()
FOOTPRINT = FootprintConfig()


def overlap_ratio(
    depth_m: Float[Tensor, "t h w"],
    reference_depth_m: Float[Tensor, "t h w"],
    confidence: Float[Tensor, "t h w"],
    sky: Bool[Tensor, "t h w"],
) -> float | None:
    """Logarithm of the factor that brings depth onto a reference of the same frames: a weighted median over pixels.

    Returns:
        None where too few pixels are shared, or where they disagree beyond belief.
    """
    try:
        ratio = scale_from_overlap(depth_m, reference_depth_m, confidence * ~sky)
    except DepthError:
        return None
    log_ratio = float(torch.tensor(ratio, dtype=torch.float64).log())
    return log_ratio if abs(log_ratio) <= MAX_LOG_RATIO else None


def solve_scales(log_ratios: list[float | None], prior_weight: float = PRIOR_WEIGHT) -> list[float]:
    """Factors for the depths of all chunks at once: neighbours agree on shared frames, and none strays from 1.

    The cameras that were asked for have given each chunk its scale already, with noise but without drift; shared
    pixels tell neighbours apart precisely. Least squares over log scales weighs both, so errors do not add up.

    Args:
        log_ratios: of chunk i + 1 onto chunk i, None where unknown. c - 1 of them
        prior_weight: weight of "the scale is 1" against a measured ratio.
    """
    count = len(log_ratios) + 1
    normal = prior_weight * torch.eye(count, dtype=torch.float64)
    right = torch.zeros(count, dtype=torch.float64)
    for i, ratio in enumerate(log_ratios):
        if ratio is None:
            continue
        # x[i + 1] - x[i] = ratio
        normal[i, i] += 1.0
        normal[i + 1, i + 1] += 1.0
        normal[i, i + 1] -= 1.0
        normal[i + 1, i] -= 1.0
        right[i + 1] += ratio
        right[i] -= ratio
    return torch.linalg.solve(normal, right).exp().tolist()


@dataclass(slots=True, kw_only=True)
class FusionCounts:
    """What happened to Gaussians while frames were added."""

    offered: int = 0
    duplicates: int = 0
    replaced: int = 0
    non_finite: int = 0
    coarsenings: int = 0


class FusedSet:
    """A growing, bounded set of Gaussians without duplicates.

    Args:
        max_gaussians: beyond it neighbours are merged into coarser ones, evenly over the whole set.
        duplicates: when two Gaussians are one.
        footprint: shape of splats made from pixels.
    """

    def __init__(
        self,
        max_gaussians: int,
        duplicates: DuplicateConfig = DUPLICATES,
        footprint: FootprintConfig = FOOTPRINT,
    ) -> None:
        self._max_gaussians = max_gaussians
        self._duplicates = duplicates
        self._footprint = footprint
        self.points: PointSet | None = None
        self.coarseness = 1.0
        self.counts = FusionCounts()

    def __len__(self) -> int:
        return 0 if self.points is None else len(self.points)

    def add_pixels(self, image: UInt8[Tensor, "h w 3"], view: View) -> None:
        """Add the pixels of a frame that nothing explains yet."""
        open_pixels = self._make_room(view)
        new = lift_pixels(
            image, view.depth_m, view.confidence, view.world_to_cam, view.intrinsics, open_pixels, self._footprint
        )
        depth = (new.means.double() @ view.world_to_cam[2, :3].double() + view.world_to_cam[2, 3].double()).float()
        row, column = _own_pixels(new.means, view)
        new = with_parts(new, view, row, column)
        self._append(new, depth / float(view.intrinsics[0, 0]), view.confidence[row, column])

    def add_gaussians(
        self,
        gaussians: Gaussians,
        spacing_m: Float[Tensor, " n"],
        view: View,
        is_allowed: Bool[Tensor, "h w"],
    ) -> None:
        """Add a frame's Gaussians whose own pixel is allowed and not explained yet."""
        open_pixels = self._make_room(view) & is_allowed
        row, column = _own_pixels(gaussians.means, view)
        wanted = open_pixels[row, column]
        self.counts.duplicates += int((~wanted).sum())
        self._append(gaussians[wanted].marked(Part.KEYFRAME), spacing_m[wanted], view.confidence[row, column][wanted])

    def _make_room(self, view: View) -> Tensor:
        """Drop what the view shows better; True at pixels that are open."""
        known = torch.isfinite(view.depth_m) & (view.depth_m > 0)
        if self.points is None:
            self.counts.offered += int(known.sum())
            return known
        points = self.points
        overlap = compare(
            points.gaussians.means, points.spacing_m, points.confidence, view, self.coarseness, self._duplicates
        )
        self.counts.offered += int(known.sum())
        self.counts.duplicates += int((known & overlap.explained).sum())
        self.counts.replaced += int(overlap.replaced.sum())
        if bool(overlap.replaced.any()):
            self.points = points[~overlap.replaced]
        return known & ~overlap.explained

    def _append(self, new: Gaussians, spacing_m: Tensor, confidence: Tensor) -> None:
        fine = is_finite(new) & torch.isfinite(spacing_m) & (spacing_m > 0)
        self.counts.non_finite += int((~fine).sum())
        part = PointSet(gaussians=new[fine], spacing_m=spacing_m[fine], confidence=confidence[fine])
        self.points = part if self.points is None else PointSet.concatenate([self.points, part])
        if len(self.points) > self._max_gaussians:
            # To well below the limit, so that the cost is paid once in many frames.
            self.points, factor = coarsen_to(self.points, int(0.7 * self._max_gaussians))
            self.coarseness = max(self.coarseness, factor)
            self.counts.coarsenings += 1


def with_parts(gaussians: Gaussians, view: View, row: Int[Tensor, " n"], column: Int[Tensor, " n"]) -> Gaussians:
    """Gaussians made from these pixels of a view: those on its shell are dome, all others show a surface."""
    made = gaussians.marked(Part.KEYFRAME)
    if view.is_shell is None:
        return made
    part = torch.where(view.is_shell[row, column], int(Part.DOME), int(Part.KEYFRAME))
    return replace(made, part=part.to(torch.uint8))


def _own_pixels(means: Tensor, view: View) -> tuple[Tensor, Tensor]:
    height, width = view.depth_m.shape
    u, v, _ = project_points(means, view.world_to_cam, view.intrinsics)
    return v.floor().long().clamp(0, height - 1), u.floor().long().clamp(0, width - 1)
