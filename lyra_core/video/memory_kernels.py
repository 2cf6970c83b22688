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

from lyra_core.jit import jit

_EPS = np.float32(1e-7)
_ZERO = np.float32(0.0)
_OUTSIDE = np.float32(-1.0)


@jit()
def _project(points, w2c, K, height, width, depths, cells):
    """Depths and cells (-1 outside) of the points [3 p] of one frame in one view; a loop the compiler can vectorise."""
    xs, ys, zs = points[0], points[1], points[2]
    r00, r01, r02, tx = w2c[0, 0], w2c[0, 1], w2c[0, 2], w2c[0, 3]
    r10, r11, r12, ty = w2c[1, 0], w2c[1, 1], w2c[1, 2], w2c[1, 3]
    r20, r21, r22, tz = w2c[2, 0], w2c[2, 1], w2c[2, 2], w2c[2, 3]
    k00, k01, k02 = K[0, 0], K[0, 1], K[0, 2]
    k10, k11, k12 = K[1, 0], K[1, 1], K[1, 2]
    k20, k21, k22 = K[2, 0], K[2, 1], K[2, 2]
    bottom, right, stride = np.float32(height - 1), np.float32(width - 1), np.float32(width)
    for i in range(xs.shape[0]):
        x, y, z = xs[i], ys[i], zs[i]
        cam_x = r00 * x + r01 * y + r02 * z + tx
        cam_y = r10 * x + r11 * y + r12 * z + ty
        cam_z = r20 * x + r21 * y + r22 * z + tz
        depth = k20 * cam_x + k21 * cam_y + k22 * cam_z
        # np.rint rounds halves to even, as torch does.
        column = np.rint((k00 * cam_x + k01 * cam_y + k02 * cam_z) / (depth + _EPS))
        row = np.rint((k10 * cam_x + k11 * cam_y + k12 * cam_z) / (depth + _EPS))
        inside = (depth > _ZERO) & (column >= _ZERO) & (row >= _ZERO) & (column <= right) & (row <= bottom)
        depths[i] = depth
        cells[i] = np.int32(row * stride + column if inside else _OUTSIDE)


@jit(parallel=True)
def nearest_depth(points, valid, w2c, K, height, width, block_depth):
    """Z-buffers of blocks of frames: points [n 3 p], valid [n p], block_depth [blocks v q], infinity on entry."""
    frames, count = valid.shape
    blocks, views = block_depth.shape[:2]
    for b in numba.prange(blocks):
        block = np.int64(b)  # prange counts in uint64
        depths, cells = np.empty(count, np.float32), np.empty(count, np.int32)
        for n in range(block * frames // blocks, (block + 1) * frames // blocks):
            for view in range(views):
                nearest = block_depth[block, view]
                _project(points[n], w2c[view], K[view], height, width, depths, cells)
                for i in range(count):
                    cell = cells[i]
                    if cell >= 0 and valid[n, i] and depths[i] < nearest[cell]:
                        nearest[cell] = depths[i]


@jit(parallel=True)
def coverage(points, valid, w2c, K, height, width, limit, seen):
    """Mark the cells each frame covers: limit [v q] the largest depth that counts, seen [n v q] zeros on entry."""
    frames, count = valid.shape
    for f in numba.prange(frames):
        n = np.int64(f)
        depths, cells = np.empty(count, np.float32), np.empty(count, np.int32)
        for view in range(limit.shape[0]):
            _project(points[n], w2c[view], K[view], height, width, depths, cells)
            for i in range(count):
                cell = cells[i]
                if cell >= 0 and valid[n, i] and depths[i] <= limit[view, cell]:
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
