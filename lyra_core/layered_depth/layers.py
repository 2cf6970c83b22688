"""A photograph and its depth as layers: what is seen, what lies behind outlines, what surrounds the picture.

Every layer is a set of samples in the photograph's pixel plane (which extends beyond its borders) or, all
around the camera, on a dome of directions. Nothing here is drawn; `splats` turns samples into Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.layered_depth.depth import FAR_M, SKY_DEPTH_M
from lyra_core.layered_depth.filters import box_mean, local_max, local_min
from lyra_core.layered_depth.inpaint import fill, push_pull

JUMP_RATIO = 1.12  # neighbouring depths that differ more are an outline
LEVEL_RATIO = 1.35  # of the depths at which backgrounds are filled
BEHIND_SHARE = 0.05  # of the width: how far backgrounds reach behind outlines
NEAR_MARGIN, NEAR_STRIDE = 0.12, 2  # surroundings in two rings: share of the width, pixels a sample
FAR_MARGIN, FAR_STRIDE = 0.75, 6
BACKSTOP_SHARE, BACKSTOP_STRIDE = 0.3, 3  # half width of the window that knows the background of a row
FOLD_SHARE = 0.35  # of the picture that is mirrored beyond its borders, again and again
DOME_STEP_RAD = math.radians(2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSamples:
    """Coloured points on rays of the photograph's camera.

    Attributes:
        rays: directions in the camera frame, of unit depth (z = 1) inside the picture plane, of unit length on
            the dome. [n 3] float32
        distance_m: multiplies the ray. [n] float32
        color: sRGB, 0 to 1. [n 3] float32
        opacity: 0 to 1. [n] float32
        axis_u: change of position for one sample to the right, metres. [n 3] float32
        axis_v: the same downwards. [n 3] float32
    """

    rays: Float[Tensor, "n 3"]
    distance_m: Float[Tensor, " n"]
    color: Float[Tensor, "n 3"]
    opacity: Float[Tensor, " n"]
    axis_u: Float[Tensor, "n 3"]
    axis_v: Float[Tensor, "n 3"]


_SAMPLE_FIELDS = ("rays", "distance_m", "color", "opacity", "axis_u", "axis_v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layered photograph; `seen` has one sample a pixel, row by row."""

    seen: LayerSamples
    behind: LayerSamples
    backstop: LayerSamples
    around: LayerSamples
    dome: LayerSamples


def build_layers(
    image: Float[Tensor, "h w 3"],
    depth_m: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
    intrinsics: Float[Tensor, "3 3"],
) -> Layers:
    """Split one photograph into layers.

    Args:
        image: sRGB, 0 to 1. [h w 3]
        depth_m: z-depth, positive everywhere outside the sky. [h w]
        sky: True where nothing is near. [h w]
        intrinsics: pixels of the photograph. [3 3]
    """
    color = image.permute(2, 0, 1).float()
    depth = torch.where(sky | (depth_m <= 0), SKY_DEPTH_M, depth_m.float().clamp(max=FAR_M))
    K = intrinsics.double()
    mixed = _outline(depth)
    seen = _plane_samples(color, depth, torch.where(mixed, 0.7, 0.98), K)
    behind = _behind(color, depth, K)
    around, canvas = _around(color, depth, K)
    return Layers(
        seen=seen,
        behind=behind,
        backstop=_backstop(color, depth, K),
        around=around,
        dome=_dome(canvas, depth, K),
    )


def _outline(depth: Tensor) -> Tensor:
    """Pixels on the near side of a jump of depth: their colour is part background."""
    return local_max(depth, 1) > depth * JUMP_RATIO


def _plane_samples(
    color: Tensor,
    depth: Tensor,
    opacity: Tensor,
    K: Tensor,
    *,
    where: Tensor | None = None,
    origin: tuple[float, float] = (0.0, 0.0),
    stride: int = 1,
) -> LayerSamples:
    """Samples of a raster laid over the picture plane; `origin` is the pixel position of its corner (x, y)."""
    height, width = depth.shape
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x = (origin[0] + (torch.arange(width) + 0.5) * stride - cx) / fx
    y = (origin[1] + (torch.arange(height) + 0.5) * stride - cy) / fy
    rays = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(depth)], -1)
    steps = torch.tensor([[stride / fx, 0.0, 0.0], [0.0, stride / fy, 0.0]])
    axes = [
        steps[i] * depth[..., None] + rays * _slope(depth, dim, steps[i].sum())[..., None]
        for i, dim in ((0, 1), (1, 0))
    ]
    keep = torch.ones_like(depth, dtype=torch.bool) if where is None else where
    return LayerSamples(
        rays=rays[keep].float(),
        distance_m=depth[keep],
        color=color.permute(1, 2, 0)[keep],
        opacity=opacity[keep],
        axis_u=axes[0][keep].float(),
        axis_v=axes[1][keep].float(),
    )


def _slope(depth: Tensor, dim: int, step: Tensor) -> Tensor:
    """Change of depth per sample along one axis: the smaller of both sides, so that outlines are not bridged."""
    before = depth - depth.roll(1, dim)
    after = depth.roll(-1, dim) - depth
    first, last = (0, depth.shape[dim] - 1)
    before.select(dim, first).copy_(after.select(dim, first).clone())
    after.select(dim, last).copy_(before.select(dim, last))
    smaller = torch.where(before.abs() < after.abs(), before, after)
    smaller = torch.where(before * after > 0, smaller, 0.0)
    # Grazing surfaces are stretched no more than sixfold; beyond that depth is not to be trusted.
    limit = 6.0 * depth * float(step)
    return smaller.clamp(-limit, limit)


def _behind(color: Tensor, depth: Tensor, K: Tensor) -> LayerSamples:
    """The background continued behind outlines, as far as a moving camera is likely to uncover it."""
    width = depth.shape[1]
    reach = max(4, round(BEHIND_SHARE * width))
    far_side = torch.where(_outline(depth), local_max(depth, 1), 0.0)
    band = local_max(far_side, reach) > depth * JUMP_RATIO
    filled_color, filled_depth = color.clone(), depth.clone()
    done = torch.zeros_like(band)
    nearest = float(depth.min())
    levels = [nearest * LEVEL_RATIO**k for k in range(1, 40) if nearest * LEVEL_RATIO**k < FAR_M]
    for level in [*levels, 0.9 * SKY_DEPTH_M]:
        # Everything clearly farther is background; two pixels of mixed colour at its outline are not.
        now = band & ~done & (depth * JUMP_RATIO**0.5 < level)
        known = local_min(depth, 2) >= level
        if int(now.sum()) < 4 or not bool(known.any()):
            continue
        done |= now
        filled_color = torch.where(now, fill(color, known), filled_color)
        inverse = push_pull(depth.reciprocal()[None], known)[0]
        filled_depth = torch.where(now, inverse.clamp(min=1e-4).reciprocal(), filled_depth)
    filled_depth = torch.maximum(filled_depth, depth * 1.03)
    opacity = torch.full_like(depth, 0.98)
    return _plane_samples(filled_color.clamp(0.0, 1.0), filled_depth, opacity, K, where=done)


def _backstop(color: Tensor, depth: Tensor, K: Tensor) -> LayerSamples:
    """A soft last background behind everything: what the same rows show to the left and right."""
    height, width = depth.shape
    half = round(BACKSTOP_SHARE * width)
    row_max = F.max_pool2d(depth[None, None], (1, 2 * half + 1), 1, (0, half))[0]
    known = depth * 1.15 >= row_max[0]
    smooth = push_pull(color, known)
    inverse = box_mean(row_max.reciprocal(), max(2, width // 60)) / 1.08
    stride = BACKSTOP_STRIDE
    size = (height // stride * stride, width // stride * stride)
    coarse = F.avg_pool2d(torch.cat([smooth, inverse])[None, :, : size[0], : size[1]], stride)[0]
    far = coarse[3].reciprocal()
    return _plane_samples(coarse[:3], far, torch.full_like(far, 0.99), K, stride=stride)


def _extend(picture: Tensor, margin: int) -> Tensor:
    """Mirror at the borders, folding to and fro within the outer part of the picture."""
    height, width = picture.shape[1:]
    rows = _mirror(torch.arange(-margin, height + margin), height)
    columns = _mirror(torch.arange(-margin, width + margin), width)
    return picture[:, rows][:, :, columns]


def _mirror(index: Tensor, size: int) -> Tensor:
    fold = max(2, round(FOLD_SHARE * size))
    beyond = torch.maximum(-1 - index, index - size).clamp(min=0).remainder(2 * fold)
    inwards = torch.where(beyond < fold, beyond, 2 * fold - 1 - beyond)
    return torch.where(index < 0, inwards, torch.where(index >= size, size - 1 - inwards, index))


def _pool(picture: Tensor, stride: int) -> Tensor:
    pad = (0, -picture.shape[2] % stride, 0, -picture.shape[1] % stride)
    return F.avg_pool2d(F.pad(picture[None], pad, mode="replicate"), stride)[0]


def _extended_inverse_depth(depth: Tensor, margin: int, stride: int) -> Tensor:
    """1/depth beyond the borders: the border's own, evened out along it, the ground coming nearer downwards."""
    height, width = depth.shape
    inverse = depth.reciprocal()
    frame = _pool(F.pad(inverse[None, None], (margin,) * 4, mode="replicate")[0], stride)
    band = max(1, width // 40 // stride)
    smooth = box_mean(box_mean(frame, band), band)[0]
    bottom = inverse[-max(2, height // 6) :].median(1).values
    slope = ((bottom[-1] - bottom[0]) / len(bottom)).clamp(min=0.0)
    below = -margin + (torch.arange(smooth.shape[0]) + 0.5) * stride - height
    # The ground cannot come nearer than a third of the lowest row's distance: underfoot it turns away.
    rise = (slope * below.clamp(min=0.0)).clamp(max=2.0 * float(bottom[-1]))
    return (smooth + rise[:, None]).clamp(min=1.0 / SKY_DEPTH_M)


def _around(color: Tensor, depth: Tensor, K: Tensor) -> tuple[LayerSamples, Tensor]:
    """Surroundings of the picture, mirrored and ever softer outwards; also the widest canvas, for the dome."""
    height, width = depth.shape
    rings = []
    canvas = color
    inner = 0
    for share, stride in ((NEAR_MARGIN, NEAR_STRIDE), (FAR_MARGIN, FAR_STRIDE)):
        margin = round(share * width / stride) * stride
        mirrored = _pool(_extend(color, margin), stride)
        radius = max(1, width // 16 // stride)
        blurred = box_mean(box_mean(mirrored, radius), radius)
        x = -margin + (torch.arange(mirrored.shape[2]) + 0.5) * stride
        y = (-margin + (torch.arange(mirrored.shape[1]) + 0.5) * stride)[:, None]
        outside = torch.maximum(torch.maximum(-y, y - height), torch.maximum(-x, x - width))
        soft = 0.85 * ((outside - 0.03 * width) / (0.5 * width)).clamp(0.0, 1.0)
        canvas = mirrored * (1.0 - soft) + blurred * soft
        ring_depth = _extended_inverse_depth(depth, margin, stride).reciprocal()
        rings.append(
            _plane_samples(
                canvas,
                ring_depth,
                torch.full_like(ring_depth, 0.99),
                K,
                where=outside >= inner,
                origin=(-float(margin), -float(margin)),
                stride=stride,
            )
        )
        inner = margin
    return _join(rings), canvas


def _join(parts: list[LayerSamples]) -> LayerSamples:
    return LayerSamples(**{name: torch.cat([getattr(p, name) for p in parts]) for name in _SAMPLE_FIELDS})


def _dome(canvas: Tensor, depth: Tensor, K: Tensor) -> LayerSamples:
    """All other directions, so that no path ends in nothing: the canvas mirrored around, soft, far away."""
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    height, width = depth.shape
    margin = round(FAR_MARGIN * width / FAR_STRIDE) * FAR_STRIDE
    across = math.atan((cx + margin) / fx)
    up = math.atan((cy + margin) / fy)
    elevation = torch.arange(-math.pi / 2 + DOME_STEP_RAD / 2, math.pi / 2, DOME_STEP_RAD)
    azimuth = torch.arange(-math.pi, math.pi, DOME_STEP_RAD)
    grid_e, grid_a = torch.meshgrid(elevation, azimuth, indexing="ij")
    # Rows near the poles need fewer samples.
    spacing = (1.0 / torch.cos(grid_e)).floor().clamp(1.0, 64.0)
    keep = (torch.arange(len(azimuth)).expand_as(grid_a) % spacing) == 0
    e, a, wide = grid_e[keep], grid_a[keep], spacing[keep]
    # Mirrored to and fro in azimuth: turning round shows the picture again, without a seam.
    turn = a.abs().remainder(4 * across)
    folded = torch.where(turn > 2 * across, 4 * across - turn, turn)
    folded = torch.where(folded > across, 2 * across - folded, folded) * a.sign()
    x = (torch.tan(folded) * fx + cx + margin) / (width + 2 * margin)
    tangent = torch.tan(e.clamp(-up, up)) / torch.cos(folded)
    y = (tangent * fy + cy + margin) / (height + 2 * margin)
    radius = max(1, width // 10 // FAR_STRIDE)
    soft = box_mean(box_mean(canvas, radius), radius)
    at = torch.stack([x, y], 1)[None, None].float() * 2.0 - 1.0
    color = F.grid_sample(soft[None], at, padding_mode="border", align_corners=False)[0, :, 0].T
    # A surrounding at a plausible distance outside the picture's own cone, and a shell behind everything: the
    # last backstop, also between the picture's surroundings and the dome when the camera leaves its place.
    inside = (a.abs() < 0.97 * across) & ((torch.tan(e) / torch.cos(a)).abs() < 0.97 * math.tan(up))
    outside = ~(inside & (a.abs() < math.pi / 2))
    near = _dome_samples(e, a, wide, color, _dome_radius(e, depth, fy, cy))
    near = LayerSamples(**{name: getattr(near, name)[outside] for name in _SAMPLE_FIELDS})
    return _join([near, _dome_samples(e, a, wide, color, torch.full_like(e, 1.3 * SKY_DEPTH_M))])


def _dome_samples(e: Tensor, a: Tensor, wide: Tensor, color: Tensor, radius: Tensor) -> LayerSamples:
    """Samples at these elevations (down is positive) and azimuths, tangential to the dome."""
    rays = torch.stack([torch.sin(a) * torch.cos(e), torch.sin(e), torch.cos(a) * torch.cos(e)], 1)
    right = torch.stack([torch.cos(a), torch.zeros_like(a), -torch.sin(a)], 1)
    down = torch.linalg.cross(right, rays)
    step = DOME_STEP_RAD * radius[:, None]
    return LayerSamples(
        rays=rays.float(),
        distance_m=radius.float(),
        color=color.contiguous(),
        opacity=torch.full((len(a),), 0.999),
        axis_u=(right * step * (wide * torch.cos(e))[:, None]).float(),
        axis_v=(down * step).float(),
    )


def _dome_radius(elevation: Tensor, depth: Tensor, fy: float, cy: float) -> Tensor:
    """The sky's distance above, a level ground below the camera, meeting where the picture's depth says."""
    lowest = float(depth[-1].median())
    eye_height = max(0.5, lowest * max(0.1, (depth.shape[0] - cy) / fy))
    backdrop = max(float(depth.quantile(0.9)), 2.0 * lowest)
    ground = eye_height / torch.sin(elevation).clamp(min=1e-3)
    return torch.where(elevation > 0, ground.clamp(max=backdrop), backdrop)
