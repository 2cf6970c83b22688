"""Gaussians from pixels with known depth: one flat splat a pixel, as large as the pixel's footprint on the surface.

Needs no Gaussian head, hence no restricted weights: position from depth and camera, colour from the image, opacity
from confidence, orientation from the neighbours' depth. Splats never bridge a depth edge: the step along the surface
is taken on the side where depth changes less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lyra_core.errors import RecipeError
from lyra_core.geometry.rotation import invert_rigid, matrix_to_quat
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintConfig:
    """Shape of the splats.

    Attributes:
        sigma: standard deviation in units of the pixel's footprint; 0.5 leaves no gaps once a rasteriser adds its
            low-pass, and little blur.
        thickness: across the surface, relative to the smaller extent on it.
        max_slant: longest extent along a slanted surface, in footprints.
        flying_ratio: a pixel whose inverse depth departs by more than this share from both neighbours on a line, being
            on neither's surface, is dropped: depth networks leave such points between an object and what is behind.
        min_opacity: opacity at confidence 0.
        max_opacity: opacity of sure pixels.
        sure_confidence: confidence from which a pixel counts as sure: one layer of half-trusted splats must not be
            half transparent.
    """

    sigma: float = 0.5
    thickness: float = 0.15
    max_slant: float = 4.0
    flying_ratio: float = 0.05
    min_opacity: float = 0.02
    max_opacity: float = 0.98
    sure_confidence: float = 0.5

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and 0 < self.thickness <= 1 and self.max_slant >= 1 and self.flying_ratio > 0):
            raise RecipeError(
                f"footprints need sigma > 0, thickness in (0, 1], max_slant >= 1 and flying_ratio > 0, found {self}"
            )
        if not (0 < self.min_opacity <= self.max_opacity <= 1 and 0 < self.sure_confidence <= 1):
            raise RecipeError(
                "opacities need 0 < min_opacity <= max_opacity <= 1 and sure_confidence in (0, 1], found "
                f"{self.min_opacity}, {self.max_opacity} and {self.sure_confidence}"
            )


def lift_pixels(
    image: UInt8[Tensor, "h w 3"],
    depth_m: Float[Tensor, "h w"],
    confidence: Float[Tensor, "h w"],
    world_to_cam: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    wanted: Bool[Tensor, "h w"] | None = None,
    config: FootprintConfig = FootprintConfig(),
) -> Gaussians:
    """One Gaussian for each wanted pixel of known depth, in the world frame.

    Args:
        image: sRGB. [h w 3] uint8
        depth_m: z-depth, 0 or not finite where unknown. [h w]
        confidence: 0 to 1. [h w]
        world_to_cam: rigid, metres. [4 4]
        intrinsics: pixels of the image, centres at +0.5. [3 3]
        wanted: pixels to lift, or None for all. [h w]
        config: shape of the splats.

    Returns:
        Gaussians in the order of rows and columns; none if no pixel qualifies.
    """
    known = torch.isfinite(depth_m) & (depth_m > 0)
    depth = torch.where(known, depth_m, 0.0).float()
    keep = known & ~flying_pixels(depth, config.flying_ratio)
    if wanted is not None:
        keep = keep & wanted
    rows, columns = keep.nonzero(as_tuple=True)
    focal_x, focal_y = float(intrinsics[0, 0]), float(intrinsics[1, 1])
    z = depth[rows, columns]
    rays = torch.stack(
        [
            (columns + 0.5 - float(intrinsics[0, 2])) / focal_x,
            (rows + 0.5 - float(intrinsics[1, 2])) / focal_y,
            torch.ones_like(z),
        ],
        dim=1,
    )
    slope_x = _slope(depth, 1)[rows, columns].clamp(-config.max_slant * z / focal_x, config.max_slant * z / focal_x)
    slope_y = _slope(depth, 0)[rows, columns].clamp(-config.max_slant * z / focal_y, config.max_slant * z / focal_y)
    # A step of one pixel on the surface: sideways by the footprint, and along the ray by the change of depth.
    step_x = rays * slope_x[:, None]
    step_x[:, 0] += z / focal_x
    step_y = rays * slope_y[:, None]
    step_y[:, 1] += z / focal_y
    axes, scales = _flat_ellipsoids(step_x, step_y, config)
    pose = invert_rigid(world_to_cam)
    rotation = pose[:3, :3].float()
    color = image[rows, columns].float() / 255.0
    trust = (confidence[rows, columns].float().nan_to_num(0.0) / config.sure_confidence).clamp(0.0, 1.0)
    return Gaussians(
        means=((rays * z[:, None]).double() @ pose[:3, :3].mT + pose[:3, 3]).float(),
        quats=matrix_to_quat(rotation @ axes),
        scales=scales,
        opacities=config.min_opacity + (config.max_opacity - config.min_opacity) * trust,
        sh=((color - 0.5) / SH_C0)[:, None],
    )


def _flat_ellipsoids(step_x: Tensor, step_y: Tensor, config: FootprintConfig) -> tuple[Tensor, Tensor]:
    """Orthonormal axes [n 3 3] (columns) and standard deviations [n 3] of discs that span both steps."""
    length_x = step_x.norm(dim=1)
    first = step_x / length_x[:, None]
    across = step_y - (step_y * first).sum(1, keepdim=True) * first
    length_y = across.norm(dim=1)
    second = across / length_y[:, None]
    axes = torch.stack([first, second, torch.linalg.cross(first, second)], dim=2)
    thin = config.thickness * torch.minimum(length_x, length_y)
    return axes, config.sigma * torch.stack([length_x, length_y, thin], dim=1)


def _slope(depth: Tensor, axis: int) -> Tensor:
    """Change of depth to the next pixel along an axis: the smaller one-sided difference, 0 beside unknown depth."""
    ahead = depth.roll(-1, axis) - depth
    behind = depth - depth.roll(1, axis)
    size = depth.shape[axis]
    ahead_known = (depth.roll(-1, axis) > 0) & (_index(depth, axis) < size - 1)
    behind_known = (depth.roll(1, axis) > 0) & (_index(depth, axis) > 0)
    ahead = torch.where(ahead_known, ahead, torch.inf)
    behind = torch.where(behind_known, behind, torch.inf)
    slope = torch.where(ahead.abs() <= behind.abs(), ahead, behind)
    # Jumps of opposite sign on both sides are a thin thing seen against something else, not a slope.
    thin = ahead_known & behind_known & (ahead * behind < 0)
    return torch.where(torch.isfinite(slope) & ~thin, slope, 0.0)


def _index(depth: Tensor, axis: int) -> Tensor:
    count = torch.arange(depth.shape[axis], device=depth.device)
    return count[:, None] if axis == 0 else count[None, :]


def flying_pixels(depth_m: Float[Tensor, "h w"], ratio: float) -> Bool[Tensor, "h w"]:
    """Pixels that hang between two surfaces: deeper than one neighbour, nearer than the opposite one, on no plane.

    On any plane inverse depth is linear in pixels, however slanted it is; departures from that line are compared with
    `ratio`.
    """
    flying = torch.zeros_like(depth_m, dtype=torch.bool)
    inverse = torch.where(depth_m > 0, 1.0 / depth_m, 0.0)
    for axis in (0, 1):
        size = depth_m.shape[axis]
        if size < 3:
            continue
        before, here, after = (inverse.narrow(axis, start, size - 2) for start in (0, 1, 2))
        between = (before - here) * (here - after) > 0
        jumps = torch.minimum((before - here).abs(), (here - after).abs()) > ratio * here
        bent = (before + after - 2 * here).abs() > ratio * here
        all_known = (before > 0) & (here > 0) & (after > 0)
        flying.narrow(axis, 1, size - 2).logical_or_(between & jumps & bent & all_known)
    return flying
