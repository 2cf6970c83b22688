"""Picture filters of the baseline: box means, the guided filter, edge snapping, regions and floods.

Arrays are torch float32 unless said otherwise; h w pixels, c channels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra_core.jit import jit


def box_mean(picture: Float[Tensor, "c h w"], radius: int) -> Float[Tensor, "c h w"]:
    """Mean over a square window, borders counted with the pixels that exist."""
    # Running sums cost the same for any radius; float64, or their differences would lose digits.
    sums = F.pad(picture.double().cumsum(2).cumsum(1), (1, 0, 1, 0))
    top, bottom = _window(picture.shape[1], radius)
    left, right = _window(picture.shape[2], radius)
    rows = sums[:, bottom] - sums[:, top]
    total = rows[:, :, right] - rows[:, :, left]
    return (total / ((bottom - top)[:, None] * (right - left))).to(picture.dtype)


def _window(size: int, radius: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(size)
    return (index - radius).clamp(min=0), (index + radius + 1).clamp(max=size)


def local_max(picture: Float[Tensor, "h w"], radius: int) -> Float[Tensor, "h w"]:
    """Maximum over a square window."""
    size = 2 * radius + 1
    across = F.max_pool2d(picture[None, None], (1, size), 1, (0, radius))
    return F.max_pool2d(across, (size, 1), 1, (radius, 0))[0, 0]


def local_min(picture: Float[Tensor, "h w"], radius: int) -> Float[Tensor, "h w"]:
    """Minimum over a square window."""
    return -local_max(-picture, radius)


def gradient(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "h w"]:
    """Length of the colour gradient by central differences, per pixel."""
    padded = F.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    dx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    dy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return (dx.square() + dy.square()).sum(0).sqrt()


def guided_filter(
    guide: Float[Tensor, "h w"], picture: Float[Tensor, "h w"], *, radius: int, epsilon: float
) -> Float[Tensor, "h w"]:
    """Smooth `picture` so that its edges follow those of `guide` (He, Sun and Tang 2013)."""
    means = box_mean(torch.stack([guide, picture, guide * picture, guide * guide]), radius)
    covariance = means[2] - means[0] * means[1]
    slope = covariance / (means[3] - means[0].square() + epsilon)
    smooth = box_mean(torch.stack([slope, means[1] - slope * means[0]]), radius)
    return smooth[0] * guide + smooth[1]


def snap_edges(picture: Float[Tensor, "h w"], *, radius: int, min_jump: float) -> Float[Tensor, "h w"]:
    """Turn soft steps into hard ones: where a window spans more than `min_jump`, take its nearer end.

    Half-way values at an outline would hang in the air between object and background. Even slopes are left
    alone: there a window of twice the size spans twice as much.
    """
    low, high = local_min(picture, radius), local_max(picture, radius)
    span_of_twice = local_max(picture, 2 * radius) - local_min(picture, 2 * radius)
    is_step = (high - low > min_jump) & (high - low > 0.75 * span_of_twice)
    nearer_end = torch.where(picture - low < high - picture, low, high)
    return torch.where(is_step, nearer_end, picture)


def flood(allowed: Bool[Tensor, "h w"], start: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """The allowed pixels that are 4-connected to an allowed start pixel."""
    reached = np.ascontiguousarray((allowed & start).numpy())
    _flood(np.ascontiguousarray(allowed.numpy()), reached)
    return torch.from_numpy(reached)


# Kernels carry no annotations: they are compiled, and their typed entrances are the functions here.
@jit()
def _flood(allowed, reached):  # type: ignore[no-untyped-def]  # noqa: ANN001
    height, width = allowed.shape
    stack = np.empty(height * width, np.int64)
    size = 0
    for y in range(height):
        for x in range(width):
            if reached[y, x]:
                stack[size] = y * width + x
                size += 1
    while size > 0:
        size -= 1
        y, x = stack[size] // width, stack[size] % width
        for side in range(4):
            v = y + (side == 0) - (side == 1)
            u = x + (side == 2) - (side == 3)
            if 0 <= v < height and 0 <= u < width and allowed[v, u] and not reached[v, u]:
                reached[v, u] = True
                stack[size] = v * width + u
                size += 1


def components(mask: Bool[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    """8-connected components of the mask and of its complement, numbered from 0."""
    return regions(mask.float()[None], scale=1e-6, min_size=1)


def regions(picture: Float[Tensor, "c h w"], *, scale: float, min_size: int) -> Int[Tensor, "h w"]:
    """Regions of similar colour (Felzenszwalb and Huttenlocher 2004), numbered from 0.

    Args:
        picture: colours, 0 to 1.
        scale: the paper's k: larger gives larger regions.
        min_size: smaller regions are merged into a neighbour, pixels.
    """
    _, height, width = picture.shape
    index = torch.arange(height * width).view(height, width)
    pairs, weights = [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left, right = max(0, -dx), width - max(0, dx)
        here = (slice(0, height - dy), slice(left, right))
        there = (slice(dy, height), slice(left + dx, right + dx))
        difference = picture[:, here[0], here[1]] - picture[:, there[0], there[1]]
        weights.append(difference.square().sum(0).sqrt().flatten())
        pairs.append(torch.stack([index[here].flatten(), index[there].flatten()], 1))
    weight = torch.cat(weights)
    order = torch.sort(weight, stable=True).indices
    labels = _merge_regions(torch.cat(pairs)[order].numpy(), weight[order].numpy(), height * width, scale, min_size)
    _, dense = np.unique(labels, return_inverse=True)
    return torch.from_numpy(dense.reshape(height, width).astype(np.int64))


@jit()
def _merge_regions(pairs, weights, num_pixels, scale, min_size):  # type: ignore[no-untyped-def]  # noqa: ANN001
    parent = np.arange(num_pixels)
    size = np.ones(num_pixels, np.int64)
    tolerance = np.full(num_pixels, scale)
    for merge_small in range(2):
        for e in range(pairs.shape[0]):
            a, b = pairs[e, 0], pairs[e, 1]
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a == b:
                continue
            if merge_small == 1:
                join = size[a] < min_size or size[b] < min_size
            else:
                join = weights[e] <= tolerance[a] and weights[e] <= tolerance[b]
            if join:
                parent[b] = a
                size[a] += size[b]
                tolerance[a] = weights[e] + scale / size[a]
    for i in range(num_pixels):
        root = i
        while parent[root] != root:
            root = parent[root]
        parent[i] = root
    return parent
