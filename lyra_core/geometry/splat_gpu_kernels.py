"""The forward warp's loops on a GPU: one program a block of source pixels and target, adding into the target's canvas.

The numbers of the torch path, except for the order in which a cell's contributions are added. Products and sums are
not fused, because a splat turns the last bit of a position into a visible hole or none.

Needs Triton, which comes with torch on CUDA machines. Legend: s sources, v views, n pixels, c channels, b targets.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = 256


def kernel(function: Callable[..., Any]) -> Any:
    """`triton.jit` without what a shape-checking import hook put around the function.

    Integers are not specialised: one kernel serves all sizes, and compiling takes longer than it would save.
    """
    bare = inspect.unwrap(function)
    parameters = inspect.signature(bare).parameters.values()
    free = [p.name for p in parameters if "constexpr" not in str(p.annotation)]
    return triton.jit(bare, do_not_specialize=free)


@kernel
def _project(points, camera, offset, inside, n):
    """Homogeneous image coordinates; camera holds the rows of a 3x4 transform, then those of the intrinsics."""
    x = tl.load(points + offset, mask=inside, other=0.0)
    y = tl.load(points + n + offset, mask=inside, other=0.0)
    z = tl.load(points + 2 * n + offset, mask=inside, other=0.0)
    c = camera
    a = tl.load(c) * x + tl.load(c + 1) * y + tl.load(c + 2) * z + tl.load(c + 3)
    b = tl.load(c + 4) * x + tl.load(c + 5) * y + tl.load(c + 6) * z + tl.load(c + 7)
    d = tl.load(c + 8) * x + tl.load(c + 9) * y + tl.load(c + 10) * z + tl.load(c + 11)
    k = camera + 12
    return (
        tl.load(k) * a + tl.load(k + 1) * b + tl.load(k + 2) * d,
        tl.load(k + 3) * a + tl.load(k + 4) * b + tl.load(k + 5) * d,
        tl.load(k + 6) * a + tl.load(k + 7) * b + tl.load(k + 8) * d,
    )


@kernel
def _max_depth(points, mask, cameras, source, result, views, n, ONLY_VALID: tl.constexpr, SIZE: tl.constexpr):
    target, view = tl.program_id(1), tl.program_id(2)
    offset = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = offset < n
    item = (tl.load(source + target) * views + view).to(tl.int64)
    _, _, z = _project(points + item * 3 * n, cameras + target * 21, offset, inside, n)
    if ONLY_VALID:
        inside = inside & (tl.load(mask + item * n + offset, mask=inside, other=0) != 0)
    tl.atomic_max(result + target, tl.max(tl.where(inside, tl.maximum(z, 0.0), 0.0)))


@kernel
def _splat(
    points, mask, values, cameras, source, normaliser, canvas, views, n, width, height,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    target, view = tl.program_id(1), tl.program_id(2)
    offset = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = offset < n
    item = (tl.load(source + target) * views + view).to(tl.int64)
    xs, ys, z = _project(points + item * 3 * n, cameras + target * 21, offset, inside, n)
    seen = inside & (tl.load(mask + item * n + offset, mask=inside, other=0) != 0) & (z > 0)
    grid_x, grid_y = (offset % width).to(tl.float32), (offset // width).to(tl.float32)
    # Through the displacement and back, like the reference: it rounds, and rounding opens or closes holes.
    column = (xs / (z + 1e-7) - grid_x) + grid_x + 1.0
    row = (ys / (z + 1e-7) - grid_y) + grid_y + 1.0
    seen = seen & (column > 0) & (row > 0) & (column < width + 1) & (row < height + 1)
    exponent = tl.log(1.0 + tl.maximum(z, 0.0)) / (tl.load(normaliser + target) + 1e-7) * 50.0
    nearness = tl.exp(tl.minimum(exponent, 80.0)) + 1e-7
    left, top = tl.floor(column), tl.floor(row)
    base = canvas + target.to(tl.int64) * (n * (CHANNELS + 2))
    for corner in tl.static_range(4):
        # At an integral position floor and ceiling are the same cell, which then counts again with full weight.
        r = tl.ceil(row) if corner >= 2 else top
        c = tl.ceil(column) if corner % 2 == 1 else left
        weight = (1.0 - tl.abs(row - r)) * (1.0 - tl.abs(column - c)) / nearness
        lands = seen & (r >= 1) & (c >= 1) & (r <= height) & (c <= width)
        cell = (r.to(tl.int32) - 1) * width + c.to(tl.int32) - 1
        at = base + cell.to(tl.int64) * (CHANNELS + 2)
        for channel in tl.static_range(CHANNELS):
            value = tl.load(values + (item * CHANNELS + channel) * n + offset, mask=lands, other=0.0)
            tl.atomic_add(at + channel, value * weight, mask=lands, sem="relaxed")
        tl.atomic_add(at + CHANNELS, z * weight, mask=lands, sem="relaxed")
        tl.atomic_add(at + CHANNELS + 1, weight, mask=lands, sem="relaxed")


def _cameras(world_to_cam: Tensor, intrinsics: Tensor) -> Float[Tensor, "b 21"]:
    return torch.cat([world_to_cam[:, :3].flatten(1), intrinsics.flatten(1)], dim=1).float().contiguous()


def _planes(points: Tensor) -> Tensor:
    """Points [s v h w 3] as the kernels read them: one plane a coordinate. [s v 3 n]"""
    return points.flatten(2, 3).transpose(2, 3).contiguous()


def max_log_depth(
    points: Float[Tensor, "s v h w 3"],
    mask: Bool[Tensor, "s v h w"],
    world_to_cam: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    source: Int[Tensor, " b"],
    *,
    only_valid: bool,
) -> Float[Tensor, " b"]:
    """Of each target, the largest log(1 + Z) over the pixels of its source."""
    views, n = mask.shape[1], mask.shape[2] * mask.shape[3]
    result = torch.zeros(world_to_cam.shape[0], device=points.device)
    grid = (triton.cdiv(n, BLOCK), len(result), views)
    _max_depth[grid](
        _planes(points), mask.flatten(2).to(torch.uint8), _cameras(world_to_cam, intrinsics), source, result,
        views, n, ONLY_VALID=only_valid, SIZE=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return torch.log(1.0 + result)


def splat(
    values: Float[Tensor, "s v c h w"],
    points: Float[Tensor, "s v h w 3"],
    mask: Bool[Tensor, "s v h w"],
    world_to_cam: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    source: Int[Tensor, " b"],
    normaliser: Float[Tensor, " b"],
) -> Float[Tensor, "b h w c2"]:
    """Accumulated values, depth and weight of each target (c + 2 channels)."""
    _, views, channels, height, width = values.shape
    n, targets = height * width, world_to_cam.shape[0]
    canvas = torch.zeros(targets, height, width, channels + 2, device=values.device)
    _splat[(triton.cdiv(n, BLOCK), targets, views)](
        _planes(points), mask.flatten(2).to(torch.uint8), values.contiguous(), _cameras(world_to_cam, intrinsics),
        source, normaliser.contiguous(), canvas, views, n, width, height,
        CHANNELS=channels, SIZE=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return canvas
