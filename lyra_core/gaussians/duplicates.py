"""Which pixels of a view are already explained by Gaussians, and which Gaussians the view replaces by finer ones.

Point-based fusion (Keller et al., "Real-time 3D Reconstruction in Dynamic Scenes using Point-based Fusion", 3DV 2013,
section 4) with comparisons free of scale: depths are compared as ratios and sizes in pixels of the view, and a
Gaussian that the view cannot see (it lies behind the view's surface) is left alone.

Shape legend: n Gaussians, h w pixels of the view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.errors import RecipeError

NEAR_PLANE = 1e-6
REACH = 0.55  # of the spacing


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateConfig:
    """When two Gaussians show the same thing.

    Attributes:
        depth_tolerance: relative difference of depth within which they lie on one surface.
        coarser_ratio: an existing Gaussian whose spacing exceeds this many pixels of the view is replaced.
        trust_ratio: an existing one with less than this share of the pixel's confidence is replaced as well.
    """

    depth_tolerance: float = 0.03
    coarser_ratio: float = 1.5
    trust_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.depth_tolerance < 1 and self.coarser_ratio >= 1 and 0 <= self.trust_ratio <= 1):
            raise RecipeError(
                f"duplicates need depth_tolerance in (0, 1), coarser_ratio >= 1 and trust_ratio in [0, 1], found {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One frame's geometry.

    Attributes:
        depth_m: z-depth, 0 where unknown. [h w]
        confidence: 0 to 1. [h w]
        world_to_cam: [4 4] float64
        intrinsics: [3 3] float64
        is_shell: pixels whose depth is the sky's shell; None where there is none. [h w]
    """

    depth_m: Float[Tensor, "h w"]
    confidence: Float[Tensor, "h w"]
    world_to_cam: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    is_shell: Bool[Tensor, "h w"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a view says about existing Gaussians.

    Attributes:
        explained: pixels that an existing Gaussian of the same surface covers finely enough. [h w]
        replaced: existing Gaussians that the view shows better. [n]
    """

    explained: Bool[Tensor, "h w"]
    replaced: Bool[Tensor, " n"]


def compare(
    means: Float[Tensor, "n 3"],
    spacing_m: Float[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    view: View,
    coarseness: float = 1.0,
    config: DuplicateConfig = DuplicateConfig(),
) -> Comparison:
    """Match existing Gaussians with the pixels of a view.

    Args:
        means: world frame. [n 3]
        spacing_m: distance at which each Gaussian's neighbours are expected. [n]
        confidence: 0 to 1. [n]
        view: the frame.
        coarseness: how much coarser than pixels the set is kept on purpose.
        config: thresholds.
    """
    height, width = view.depth_m.shape
    u, v, z = project_points(means, view.world_to_cam, view.intrinsics)
    near = ((z > NEAR_PLANE) & (u > -1) & (u < width + 1) & (v > -1) & (v < height + 1)).nonzero()[:, 0]
    u, v, z = u[near], v[near], z[near]
    spacing_px = spacing_m[near] * float(view.intrinsics[0, 0]) / z
    trust = confidence[near]
    column, row = u.floor().long(), v.floor().long()
    same, there = _same_surface(row, column, z, view, config)
    worse = (spacing_px > config.coarser_ratio * coarseness) | (trust < config.trust_ratio * there)
    replaced = torch.zeros(len(means), dtype=torch.bool)
    replaced[near[same & worse]] = True
    explained = torch.zeros(height, width, dtype=torch.bool)
    kept = ~(same & worse)
    # Of the four pixel centres around a Gaussian it explains those within half its spacing: a lattice of Gaussians then
    # explains every pixel inside it, and where it ends the next splat comes soon enough to leave no crack.
    reach = REACH * spacing_px.clamp_min(1.0)
    left, top = (u - 0.5).floor().long(), (v - 0.5).floor().long()
    for down in (0, 1):
        for right in (0, 1):
            r, c = top + down, left + right
            hit, _ = _same_surface(r, c, z, view, config)
            hit &= ((u - c - 0.5).abs() <= reach) & ((v - r - 0.5).abs() <= reach)
            hit &= kept & (spacing_px <= config.coarser_ratio * coarseness)
            explained[r[hit], c[hit]] = True
    if coarseness > config.coarser_ratio:
        explained = _grown(explained, round(coarseness / 2))
    return Comparison(explained=explained, replaced=replaced)


def _same_surface(row: Tensor, column: Tensor, z: Tensor, view: View, config: DuplicateConfig) -> tuple[Tensor, Tensor]:
    """Whether points at depth z lie on the surface the view shows at a pixel, and the view's confidence there."""
    height, width = view.depth_m.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    seen = view.depth_m[row, column]
    close = (z - seen).abs() <= config.depth_tolerance * seen
    return inside & close & (seen > 0), view.confidence[row, column]


def _grown(mask: Tensor, radius: int) -> Tensor:
    if radius < 1:
        return mask
    pooled = torch.nn.functional.max_pool2d(mask[None, None].float(), 2 * radius + 1, stride=1, padding=radius)
    return pooled[0, 0] > 0


def project_points(
    means: Float[Tensor, "n 3"], world_to_cam: Float[Tensor, "4 4"], intrinsics: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Continuous pixel coordinates u, v and z-depth, in float32; u and v mean nothing where z <= 0."""
    w2c, K = world_to_cam.to(means), intrinsics.to(means)
    x, y, z = (means @ w2c[:3, :3].mT + w2c[:3, 3]).unbind(-1)
    safe = z.clamp_min(NEAR_PLANE)
    return K[0, 0] * x / safe + K[0, 2], K[1, 1] * y / safe + K[1, 2], z
