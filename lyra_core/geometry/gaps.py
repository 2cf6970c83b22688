"""Closes the gaps a forward warp leaves where a surface comes nearer: its pixels drift apart and nothing lies between.

A gap is a run of holes, along a row or a column, between two landed pixels of one surface (alike in depth). It is
filled between the two. Holes behind an edge stay: there the two sides are different surfaces.

Legend: k frames, c channels, h w pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SAME_SURFACE = 0.15
"""Largest difference in depth, relative to the nearer side, across a gap."""


PASSES = 2
"""Of points that drifted apart in both directions, the first pass closes rows and columns of points only."""


def close_gaps(
    values: Float[Tensor, "k c h w"],
    depth_m: Float[Tensor, "k h w"],
    landed: Bool[Tensor, "k h w"],
    gap_px: int,
    *,
    backend: Literal["auto", "numba", "torch"] = "auto",
) -> tuple[Float[Tensor, "k c h w"], Float[Tensor, "k h w"], Bool[Tensor, "k h w"]]:
    """Frames, depth and coverage of warps with their gaps closed.

    Args:
        values: of landed pixels; anything in holes, which keep theirs.
        depth_m: of landed pixels, metres along the optical axis of the target camera.
        landed: where there is no hole.
        gap_px: widest run of holes that is closed; 0 closes none.
        backend: "numba" (CPU, float32), "torch" (any device; the reference), or chosen by the device.
    """
    if gap_px < 1:
        return values, depth_m, landed
    way = backend
    if way == "auto":
        way = "torch" if values.is_cuda else "numba"
    if way == "torch":
        return _close_torch(values, depth_m, landed, gap_px)
    from lyra_core.geometry.gap_kernels import close_frames
    from lyra_core.jit import kernel_threads

    frames, deep = (t.detach().to("cpu", torch.float32, copy=True).contiguous() for t in (values, depth_m))
    whole = landed.to("cpu", copy=True).contiguous()
    with kernel_threads():
        close_frames(frames.numpy(), deep.numpy(), whole.numpy(), gap_px, SAME_SURFACE, PASSES)
    return frames.to(values), deep.to(depth_m), whole.to(landed.device)


def _close_torch(values: Tensor, depth_m: Tensor, landed: Tensor, gap_px: int) -> tuple[Tensor, Tensor, Tensor]:
    for _ in range(PASSES):
        filled, weight = torch.zeros_like(values), torch.zeros_like(depth_m)
        deep = torch.zeros_like(depth_m)
        for dim in (2, 1):
            value, depth, width = _across(values, depth_m, landed, dim, gap_px)
            share = torch.where(width > 0, 1.0 / width.clamp(min=1), torch.zeros_like(depth_m))
            filled += value * share[:, None]
            deep += depth * share
            weight += share
        closed = (weight > 0) & ~landed
        safe = weight.clamp(min=1e-6)
        values = torch.where(closed[:, None], filled / safe[:, None], values)
        depth_m = torch.where(closed, deep / safe, depth_m)
        landed = landed | closed
    return values, depth_m, landed


def _across(values: Tensor, depth_m: Tensor, landed: Tensor, dim: int, gap_px: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values and depth between the landed pixels on both sides along an axis; the gap's width, 0 where none closes."""
    size = landed.shape[dim]
    shape = [1, 1, 1]
    shape[dim] = size
    place = torch.arange(size, device=landed.device).view(shape).expand(landed.shape)
    before = torch.where(landed, place, torch.full_like(place, -1)).cummax(dim).values
    behind = torch.where(landed, place, torch.full_like(place, size)).flip(dim).cummin(dim).values.flip(dim)
    inside = ~landed & (before >= 0) & (behind < size)
    width = behind - before - 1
    left, right = before.clamp(min=0), behind.clamp(max=size - 1)
    near, far = depth_m.gather(dim, left), depth_m.gather(dim, right)
    alike = (near - far).abs() <= SAME_SURFACE * torch.minimum(near, far)
    chosen = inside & (width <= gap_px) & alike
    share = ((place - left) / (right - left).clamp(min=1)).to(depth_m.dtype)
    channels = values.shape[1]
    sides = [values.gather(dim + 1, index[:, None].expand(-1, channels, -1, -1)) for index in (left, right)]
    value = torch.lerp(sides[0], sides[1], share[:, None].to(values.dtype))
    return value, torch.lerp(near, far, share), torch.where(chosen, width, torch.zeros_like(width))
