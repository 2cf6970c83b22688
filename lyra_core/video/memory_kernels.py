"""Compiled loops behind the spatial memory on CPU: z-buffers and coverage of thousands of stored frames.

Frames are split into contiguous blocks, one a thread, each with its own z-buffer; minima are then taken across blocks,
so the result is the same for any number of threads. Arithmetic is float32 in the order of the torch path. No shape
annotations: numba compiles these functions, and lyra_core.video.memory annotates their callers.

Legend: n stored frames, p points a frame, v query views, q = rows x columns of a view.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import numba
import numpy as np

from lyra_core.gaussians.jit import jit

_EPS = np.float32(1e-7)
_ZERO = np.float32(0.0)
_FAR = np.float32(np.inf)
OUTSIDE = np.int32(-1)
UNOWNED = np.int32(2**31 - 1)


@jit(inline="always")
def _pixel(w2c, K, x, y, z, height, width):
    """Cell of a world point in a view, or -1, and its depth."""
    cam_x = w2c[0, 0] * x + w2c[0, 1] * y + w2c[0, 2] * z + w2c[0, 3]
    cam_y = w2c[1, 0] * x + w2c[1, 1] * y + w2c[1, 2] * z + w2c[1, 3]
    cam_z = w2c[2, 0] * x + w2c[2, 1] * y + w2c[2, 2] * z + w2c[2, 3]
    depth = K[2, 0] * cam_x + K[2, 1] * cam_y + K[2, 2] * cam_z
    if depth <= _ZERO:
        return OUTSIDE, depth
    column = (K[0, 0] * cam_x + K[0, 1] * cam_y + K[0, 2] * cam_z) / (depth + _EPS)
    row = (K[1, 0] * cam_x + K[1, 1] * cam_y + K[1, 2] * cam_z) / (depth + _EPS)
    # Half-open test before rounding: np.rint rounds halves to even, as torch does.
    column, row = np.rint(column), np.rint(row)
    if not (column >= 0 and row >= 0 and column < width and row < height):
        return OUTSIDE, depth
    return np.int32(np.int32(row) * width + np.int32(column)), depth


@jit(parallel=True)
def nearest_depth(points, valid, w2c, K, height, width, block_depth):
    """Z-buffers of blocks of frames: points [n p 3], valid [n p], block_depth [blocks v q], infinity on entry."""
    frames, count = valid.shape
    blocks, views = block_depth.shape[:2]
    for b in numba.prange(blocks):
        block = np.int64(b)  # prange counts in uint64
        for n in range(block * frames // blocks, (block + 1) * frames // blocks):
            for view in range(views):
                nearest = block_depth[block, view]
                for i in range(count):
                    if not valid[n, i]:
                        continue
                    cell, depth = _pixel(
                        w2c[view],
                        K[view],
                        points[n, i, 0],
                        points[n, i, 1],
                        points[n, i, 2],
                        height,
                        width,
                    )
                    if cell >= 0 and depth < nearest[cell]:
                        nearest[cell] = depth


@jit(parallel=True)
def coverage(points, valid, w2c, K, height, width, limit, seen):
    """Mark the cells each frame covers: limit [v q] the largest depth that counts, seen [n v q] zeros on entry."""
    frames, count = valid.shape
    for f in numba.prange(frames):
        n = np.int64(f)
        for view in range(limit.shape[0]):
            for i in range(count):
                if not valid[n, i]:
                    continue
                cell, depth = _pixel(
                    w2c[view],
                    K[view],
                    points[n, i, 0],
                    points[n, i, 1],
                    points[n, i, 2],
                    height,
                    width,
                )
                if cell >= 0 and depth <= limit[view, cell]:
                    seen[n, view, cell] = 1


@jit(parallel=True)
def new_cells(seen, covered, gains):
    """How many cells each frame would newly cover: seen [n c], covered [c], gains [n]."""
    for f in numba.prange(seen.shape[0]):
        n = np.int64(f)
        total = 0
        for c in range(seen.shape[1]):
            total += seen[n, c] & (1 - covered[c])
        gains[n] = total
