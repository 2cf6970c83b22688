"""Moves what one camera saw to where another camera would see it: depth-weighted forward splatting.

Softmax-like splatting after Niklaus and Liu, "Softmax Splatting for Video Frame Interpolation" (CVPR 2020), section
3.2, with a logarithmic depth importance; Lyra 2 conditions its video model on images and coordinates warped this way.

Pixel coordinates here are INTEGERS at pixel centres (the centre of the top-left pixel is (0, 0)), because the released
Lyra 2 weights were trained so; everywhere else in this project pixel centres lie at +0.5.

Legend: s sources (1, or one for each target), v views of a source, b targets, c channels, h w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.config.rollout import REFERENCE_WARP, WarpConfig
from lyra_core.errors import FrameError

MAX_DEPTH_M = 1e4
EPSILON = 1e-7
DEPTH_SHARPNESS = 50.0
MAX_EXPONENT = 80.0
IMAGE_HOLE = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpSource:
    """Images with geometry, ready to be seen from elsewhere.

    Attributes:
        values: what is carried, colours or coordinates. [s v c h w] float32; c may be 0 to carry depth alone
        depth_m: z-depth, 0 where unknown. [s v h w] float32
        world_to_cam: rigid transforms. [s v 4 4] float32
        intrinsics: pixels, integer-centre convention of this module. [s v 3 3] float32
        mask: pixels allowed to be carried, in addition to valid and reliable ones, or None. [s v h w]
    """

    values: Float[Tensor, "s v c h w"]
    depth_m: Float[Tensor, "s v h w"]
    world_to_cam: Float[Tensor, "s v 4 4"]
    intrinsics: Float[Tensor, "s v 3 3"]
    mask: Bool[Tensor, "s v h w"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """What the target cameras see of a source.

    Attributes:
        values: -1 in holes. [b c h w] float32
        depth_m: 0 in holes. [b h w] float32
        mask: True where something landed. [b h w]
    """

    values: Float[Tensor, "b c h w"]
    depth_m: Float[Tensor, "b h w"]
    mask: Bool[Tensor, "b h w"]


def transform(matrix: Float[Tensor, "*#k 3 m"], points: Float[Tensor, "*#k h w 3"]) -> Float[Tensor, "*#k h w 3"]:
    """Apply 3x3 or 3x4 matrices to points, summing products left to right.

    The order of summation is fixed (no fused multiply-add, no matrix kernel) because a splat turns the last bit of a
    position into a visible hole or none.
    """
    columns = [matrix[..., None, None, :, i] for i in range(matrix.shape[-1])]
    total = columns[0] * points[..., 0:1] + columns[1] * points[..., 1:2] + columns[2] * points[..., 2:3]
    return total + columns[3] if len(columns) == 4 else total


def pixel_grid(height: int, width: int, device: torch.device | str = "cpu") -> Float[Tensor, "h w 3"]:
    """Homogeneous integer pixel coordinates (x, y, 1)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def unproject_integer(
    depth_m: Float[Tensor, "*#k h w"],
    world_to_cam: Float[Tensor, "*#k 4 4"],
    intrinsics: Float[Tensor, "*#k 3 3"],
) -> Float[Tensor, "*#k h w 3"]:
    """World points of depth pixels at integer coordinates; pixels of depth 0 or less become the world origin.

    Args:
        depth_m: z-depth, metres.
        world_to_cam: rigid transforms; inverted in float32 as the released model's memory does.
        intrinsics: pixels, integer centres.
    """
    height, width = depth_m.shape[-2:]
    rays = transform(torch.linalg.inv(intrinsics), pixel_grid(height, width, depth_m.device))
    cam_to_world = torch.linalg.inv(world_to_cam)[..., :3, :]
    world = transform(cam_to_world, depth_m[..., None] * rays)
    return torch.where(depth_m[..., None] > 0, world, torch.zeros_like(world))


def project_integer(
    points: Float[Tensor, "*#k h w 3"],
    world_to_cam: Float[Tensor, "*#k 4 4"],
    intrinsics: Float[Tensor, "*#k 3 3"],
) -> Float[Tensor, "*#k h w 3"]:
    """Homogeneous image points K (R p + t); divide the first two by the third for integer-centre pixels."""
    return transform(intrinsics, transform(world_to_cam[..., :3, :], points))


def is_reliable(depth_m: Float[Tensor, "*k h w"], threshold: float = 0.05) -> Bool[Tensor, "*k h w"]:
    """Valid pixels whose 5x5 neighbourhood varies by less than `threshold` of its mean depth.

    The mean counts the zeros of the padding, as the released model does.
    """
    depth = depth_m.reshape(-1, 1, *depth_m.shape[-2:])
    largest = functional.max_pool2d(depth, 5, stride=1, padding=2)
    smallest = -functional.max_pool2d(-depth, 5, stride=1, padding=2)
    mean = functional.avg_pool2d(depth, 5, stride=1, padding=2)
    flat = (largest - smallest) / (mean + 1e-6) < threshold
    return flat.reshape(depth_m.shape) & (depth_m > 0)


def is_smooth(depth_m: Float[Tensor, "*k h w"], threshold: float = 0.04) -> Bool[Tensor, "*k h w"]:
    """Valid pixels where inverse depth does not bend, along rows and columns.

    Inverse depth is affine in pixels on any plane, however slanted, so its second difference marks edges only; the 5x5
    range test instead refuses floors beyond a few metres.
    """
    valid = depth_m > 0
    inverse = torch.where(valid, 1.0 / depth_m.clamp(min=1e-6), torch.zeros_like(depth_m))
    bend = torch.maximum(_second_difference(inverse, -1), _second_difference(inverse, -2))
    return (bend * depth_m <= threshold) & valid


def _second_difference(x: Tensor, dim: int) -> Tensor:
    """Absolute second difference, one-sided at the ends (padding the values would bend slanted planes there)."""
    if x.shape[dim] < 3:
        return torch.zeros_like(x)
    inner = x.diff(n=2, dim=dim).abs()
    return torch.cat([inner.narrow(dim, 0, 1), inner, inner.narrow(dim, inner.shape[dim] - 1, 1)], dim=dim)


def reliability_mask(depth_m: Float[Tensor, "*k h w"], config: WarpConfig) -> Bool[Tensor, "*k h w"]:
    """The configured reliability test."""
    test = is_reliable if config.reliability == "range" else is_smooth
    return test(depth_m, config.reliability_threshold)


def clean_depth(depth_m: Float[Tensor, "*k h w"]) -> Float[Tensor, "*k h w"]:
    """NaN as the largest depth, everything within 0 to 10,000 m."""
    return torch.nan_to_num(depth_m, nan=MAX_DEPTH_M).clamp(0.0, MAX_DEPTH_M)


def forward_warp(
    source: WarpSource,
    target_world_to_cam: Float[Tensor, "b 4 4"],
    target_intrinsics: Float[Tensor, "b 3 3"],
    config: WarpConfig = REFERENCE_WARP,
    *,
    render: list[int] | None = None,
    backend: Literal["auto", "numba", "torch", "triton"] = "auto",
) -> Warp:
    """Splat a source into target cameras of the same image size.

    Every source pixel lands on its four neighbours with bilinear weights divided by exp(50 log(1+Z) / log(1+Zmax)):
    nearer points win smoothly. Views of one source are accumulated together.

    Args:
        source: s sources for b targets, each for b / s consecutive ones (s = 1: one for all).
        target_world_to_cam: rigid transforms.
        target_intrinsics: pixels, integer centres.
        config: reliability and grouping; groups are counted over all targets, rendered or not.
        render: positions of the targets to render; all of them if None.
        backend: "numba" (CPU; deterministic), "torch" (any device; the reference), "triton" (GPU), or chosen by the
            source's device.

    Returns:
        One warp for each rendered target.

    Raises:
        FrameError: the number of sources does not divide the number of targets.
    """
    num_sources, num_targets = source.values.shape[0], target_world_to_cam.shape[0]
    if num_targets % num_sources:
        raise FrameError(
            f"a warp needs one source, or one for equal numbers of the {num_targets} targets, "
            f"found {num_sources} sources"
        )
    depth = clean_depth(source.depth_m)
    mask = reliability_mask(depth, config)
    if source.mask is not None:
        mask = mask & source.mask
    points = unproject_integer(
        torch.where(mask, depth, torch.zeros_like(depth)), source.world_to_cam, source.intrinsics
    )
    way = backend
    if way == "auto":
        way = "numba" if depth.device.type == "cpu" else "triton" if depth.is_cuda else "torch"
    scene = _Scene(source.values, points, mask, target_world_to_cam, target_intrinsics)
    if way != "triton":
        scene = _one_source_a_target(scene)
    largest = _MAX_LOG_DEPTH[way](scene, config)
    normaliser = _share_in_groups(largest, config.group_size)
    chosen = list(range(num_targets)) if render is None else render
    return _normalise(_SPLAT[way](scene, normaliser, chosen, config))


@dataclass(frozen=True, slots=True)
class _Scene:
    """What both paths read: source values and world points, and the target cameras."""

    values: Tensor
    points: Tensor
    mask: Tensor
    world_to_cam: Tensor
    intrinsics: Tensor


def _one_source_a_target(scene: _Scene) -> _Scene:
    """Sources repeated for their targets, unless one serves all."""
    sources, targets = scene.values.shape[0], scene.world_to_cam.shape[0]
    if sources in (1, targets):
        return scene
    each = targets // sources
    values, points, mask = (t.repeat_interleave(each, 0) for t in (scene.values, scene.points, scene.mask))
    return _Scene(values, points, mask, scene.world_to_cam, scene.intrinsics)


def _share_in_groups(largest: Tensor, group_size: int | None) -> Tensor:
    """Each target's normaliser: its own, or the largest of its group of consecutive targets."""
    if group_size is None:
        return largest
    return torch.cat([part.amax().expand(part.shape[0]) for part in largest.split(group_size)])


def _normalise(canvas: Tensor) -> Warp:
    """Divide accumulated values and depth by accumulated weight; canvas [b h w c+2]."""
    weight = canvas[..., -1]
    landed = weight > 0
    safe = torch.where(landed, weight, torch.ones_like(weight))[..., None]
    mean = canvas[..., :-1] / safe
    values = torch.where(landed[..., None], mean[..., :-1], torch.full_like(mean[..., :-1], IMAGE_HOLE))
    depth = torch.where(landed, mean[..., -1], torch.zeros_like(weight))
    return Warp(
        values=values.clamp(-1.0, 1.0).movedim(-1, 1).contiguous(),
        depth_m=depth.contiguous(),
        mask=landed,
    )


def _max_log_depth_torch(scene: _Scene, config: WarpConfig) -> Tensor:
    parts = []
    for at in range(0, scene.world_to_cam.shape[0], config.num_targets_at_once):
        which = slice(at, at + config.num_targets_at_once)
        points = scene.points if scene.points.shape[0] == 1 else scene.points[which]
        depth = project_integer(points, scene.world_to_cam[which, None], scene.intrinsics[which, None])[..., 2].clamp(
            min=0
        )
        if config.group_size is None:
            mask = scene.mask if scene.mask.shape[0] == 1 else scene.mask[which]
            depth = torch.where(mask, depth, torch.zeros_like(depth))
        parts.append(torch.log(1.0 + depth.flatten(1).amax(1)))
    return torch.cat(parts)


def _max_log_depth_numba(scene: _Scene, config: WarpConfig) -> Tensor:
    from lyra_core.geometry.splat_kernels import max_log_depth
    from lyra_core.jit import kernel_threads

    result = torch.zeros(scene.world_to_cam.shape[0])
    with kernel_threads():
        max_log_depth(
            _planes(scene.points),
            scene.mask.flatten(2).contiguous().numpy(),
            scene.world_to_cam[:, :3].contiguous().numpy(),
            scene.intrinsics.contiguous().numpy(),
            config.group_size is None,
            result.numpy(),
        )
    return result


def _planes(points: Tensor) -> np.ndarray:
    """Points [s v h w 3] as the kernels read them: one plane a coordinate. [s v 3 n]"""
    return points.flatten(2, 3).transpose(2, 3).contiguous().numpy()


def _splat_numba(scene: _Scene, normaliser: Tensor, chosen: list[int], config: WarpConfig) -> Tensor:  # noqa: ARG001
    from lyra_core.geometry.splat_kernels import splat
    from lyra_core.jit import kernel_threads

    s, _, c, h, w = scene.values.shape
    pick = (lambda t: t[chosen]) if s > 1 else (lambda t: t)
    canvas = torch.zeros(len(chosen), h * w, c + 2)
    with kernel_threads():
        splat(
            _planes(pick(scene.points)),
            pick(scene.mask).flatten(2).contiguous().numpy(),
            pick(scene.values).flatten(3).contiguous().numpy(),
            scene.world_to_cam[chosen, :3].contiguous().numpy(),
            scene.intrinsics[chosen].contiguous().numpy(),
            normaliser[chosen].contiguous().numpy(),
            h,
            w,
            canvas.numpy(),
        )
    return canvas.view(len(chosen), h, w, c + 2)


def _splat_torch(scene: _Scene, normaliser: Tensor, chosen: list[int], config: WarpConfig) -> Tensor:
    """The same accumulation with tensor operations, a bounded number of targets at a time."""
    parts = []
    for at in range(0, len(chosen), config.num_targets_at_once):
        which = chosen[at : at + config.num_targets_at_once]
        shared = scene.values.shape[0] == 1
        values, points, mask = (t if shared else t[which] for t in (scene.values, scene.points, scene.mask))
        image = project_integer(points, scene.world_to_cam[which, None], scene.intrinsics[which, None])
        parts.append(_accumulate(values, image, mask & (image[..., 2] > 0), normaliser[which]))
    return torch.cat(parts)


def _accumulate(values: Tensor, image: Tensor, mask: Tensor, normaliser: Tensor) -> Tensor:
    """Scatter one batch; values [s v c h w], image [b v h w 3] homogeneous, mask [b v h w], normaliser [b]."""
    b, v, h, w = mask.shape
    c = values.shape[2]
    depth = image[..., 2]
    # A border of one pixel swallows everything that lands outside; it is cropped at the end.
    # Positions go through the displacement and back, like the reference: it rounds, and rounding opens or closes holes.
    grid = pixel_grid(h, w, values.device)
    column = (image[..., 0] / (depth + EPSILON) - grid[..., 0]) + grid[..., 0] + 1.0
    row = (image[..., 1] / (depth + EPSILON) - grid[..., 1]) + grid[..., 1] + 1.0
    left, right = column.floor().clamp(0, w + 1), column.ceil().clamp(0, w + 1)
    top, bottom = row.floor().clamp(0, h + 1), row.ceil().clamp(0, h + 1)
    exponent = torch.log(1.0 + depth.clamp(min=0)) / (normaliser[:, None, None, None] + EPSILON) * DEPTH_SHARPNESS
    nearness = torch.exp(exponent.clamp(max=MAX_EXPONENT)) + EPSILON
    carried = torch.cat(
        [
            values.movedim(2, -1).expand(b, v, h, w, c),
            depth[..., None],
            torch.ones_like(depth)[..., None],
        ],
        dim=-1,
    ).reshape(b, v * h * w, c + 2)
    canvas = values.new_zeros(b, (h + 2) * (w + 2), c + 2)
    for rows, columns in ((top, left), (bottom, left), (top, right), (bottom, right)):
        proximity = (1.0 - (row - rows).abs()) * (1.0 - (column - columns).abs())
        weight = torch.where(mask, proximity / nearness, torch.zeros_like(proximity)).reshape(b, -1, 1)
        cell = (rows * (w + 2) + columns).to(torch.int64).reshape(b, -1, 1)
        canvas.scatter_add_(1, cell.expand(-1, -1, c + 2), carried * weight)
    return canvas.view(b, h + 2, w + 2, c + 2)[:, 1:-1, 1:-1]


def _source_of_target(scene: _Scene) -> Tensor:
    sources, targets = scene.values.shape[0], scene.world_to_cam.shape[0]
    return torch.arange(targets, device=scene.values.device, dtype=torch.int32) // (targets // sources)


def _max_log_depth_triton(scene: _Scene, config: WarpConfig) -> Tensor:
    from lyra_core.geometry.splat_gpu_kernels import max_log_depth

    return max_log_depth(
        scene.points,
        scene.mask,
        scene.world_to_cam,
        scene.intrinsics,
        _source_of_target(scene),
        only_valid=config.group_size is None,
    )


def _splat_triton(scene: _Scene, normaliser: Tensor, chosen: list[int], config: WarpConfig) -> Tensor:  # noqa: ARG001
    from lyra_core.geometry.splat_gpu_kernels import splat

    source, cameras, intrinsics = _source_of_target(scene), scene.world_to_cam, scene.intrinsics
    if len(chosen) < cameras.shape[0]:
        at = torch.tensor(chosen, device=cameras.device)
        source, cameras, intrinsics, normaliser = source[at], cameras[at], intrinsics[at], normaliser[at]
    return splat(scene.values, scene.points, scene.mask, cameras, intrinsics, source, normaliser)


_MAX_LOG_DEPTH = {"numba": _max_log_depth_numba, "torch": _max_log_depth_torch, "triton": _max_log_depth_triton}
_SPLAT = {"numba": _splat_numba, "torch": _splat_torch, "triton": _splat_triton}
