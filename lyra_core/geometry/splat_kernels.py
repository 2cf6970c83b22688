"""Compiled loops behind the forward warp on CPU: the numbers of the torch path, in its order, a target a thread.

Each target image is accumulated by one thread, pixel after pixel, so the result is the same for any number of threads.
Arithmetic is float32 without contraction or reassociation (no fastmath), like the torch path it stands in for.
The kernels carry no shape annotations because numba compiles them; lyra_core.geometry.warp annotates their callers.

Legend: s sources (1 or b), v views, n pixels, c channels, b targets.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import math

import numba
import numpy as np

from lyra_core.jit import jit

_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_EPS = np.float32(1e-7)
_SHARPNESS = np.float32(50.0)
_MAX_EXPONENT = np.float32(80.0)


@jit()
def _project(points, world_to_cam, intrinsics, xs, ys, zs):
    """Homogeneous image coordinates of points [3 n] in one camera; a loop the compiler can vectorise."""
    w, k = world_to_cam, intrinsics
    r00, r01, r02, t0 = w[0, 0], w[0, 1], w[0, 2], w[0, 3]
    r10, r11, r12, t1 = w[1, 0], w[1, 1], w[1, 2], w[1, 3]
    r20, r21, r22, t2 = w[2, 0], w[2, 1], w[2, 2], w[2, 3]
    k00, k01, k02 = k[0, 0], k[0, 1], k[0, 2]
    k10, k11, k12 = k[1, 0], k[1, 1], k[1, 2]
    k20, k21, k22 = k[2, 0], k[2, 1], k[2, 2]
    for i in range(points.shape[1]):
        x, y, z = points[0, i], points[1, i], points[2, i]
        cam_x = r00 * x + r01 * y + r02 * z + t0
        cam_y = r10 * x + r11 * y + r12 * z + t1
        cam_z = r20 * x + r21 * y + r22 * z + t2
        xs[i] = k00 * cam_x + k01 * cam_y + k02 * cam_z
        ys[i] = k10 * cam_x + k11 * cam_y + k12 * cam_z
        zs[i] = k20 * cam_x + k21 * cam_y + k22 * cam_z


@jit(parallel=True)
def max_log_depth(points, mask, world_to_cam, intrinsics, only_valid, result):
    """Per target, the largest log(1 + Z) over source pixels; points [s v 3 n], mask [s v n], result [b]."""
    sources, views, pixels = mask.shape
    for b in numba.prange(world_to_cam.shape[0]):
        s = np.int64(b) if sources > 1 else np.int64(0)  # prange counts in uint64
        xs, ys, zs = np.empty(pixels, np.float32), np.empty(pixels, np.float32), np.empty(pixels, np.float32)
        largest = _ZERO
        for v in range(views):
            _project(points[s, v], world_to_cam[b], intrinsics[b], xs, ys, zs)
            valid = mask[s, v]
            for i in range(pixels):
                if zs[i] > largest and (valid[i] or not only_valid):
                    largest = zs[i]
        result[b] = np.float32(math.log(_ONE + largest))


@jit()
def _splat_view(xs, ys, zs, mask, values, normaliser, height, width, canvas):
    """Accumulate the pixels of one view, already projected, in one target."""
    channels = values.shape[0]
    last_x, last_y = np.float32(width + 1), np.float32(height + 1)
    i = -1
    for y in range(height):
        grid_y = np.float32(y)
        for x in range(width):
            i += 1
            z = zs[i]
            if not mask[i] or z <= _ZERO:
                continue
            # Through the displacement and back, like the reference: it rounds, and rounding opens or closes holes.
            grid_x = np.float32(x)
            column = (xs[i] / (z + _EPS) - grid_x) + grid_x + _ONE
            row = (ys[i] / (z + _EPS) - grid_y) + grid_y + _ONE
            if not (_ZERO < column < last_x and _ZERO < row < last_y):
                continue
            left, top = np.int64(column), np.int64(row)  # both positive: truncation is the floor
            near_left = _ONE - (column - np.float32(left))
            near_top = _ONE - (row - np.float32(top))
            # At an integral position floor and ceiling are the same cell, which then counts again with full weight.
            right = left + 1 if near_left < _ONE else left
            bottom = top + 1 if near_top < _ONE else top
            near_right = _ONE - (np.float32(right) - column)
            near_bottom = _ONE - (np.float32(bottom) - row)
            exponent = np.float32(math.log(_ONE + z)) / (normaliser + _EPS) * _SHARPNESS
            nearness = np.float32(math.exp(min(exponent, _MAX_EXPONENT))) + _EPS
            for corner in range(4):
                r = top if corner < 2 else bottom
                c = left if corner % 2 == 0 else right
                # Rows and columns 0 and height+1, width+1 are the border that swallows what falls outside.
                if r < 1 or c < 1 or r > height or c > width:
                    continue
                vertical = near_top if corner < 2 else near_bottom
                weight = vertical * (near_left if corner % 2 == 0 else near_right) / nearness
                cell = (r - 1) * width + c - 1
                for channel in range(channels):
                    canvas[cell, channel] += values[channel, i] * weight
                canvas[cell, channels] += z * weight
                canvas[cell, channels + 1] += weight


@jit(parallel=True)
def splat(points, mask, values, world_to_cam, intrinsics, normaliser, height, width, result):
    """Accumulate weighted values, depth and weight; values [s v c n], result [b n c+2] zeros on entry."""
    sources, views, pixels = mask.shape
    for b in numba.prange(world_to_cam.shape[0]):
        s = np.int64(b) if sources > 1 else np.int64(0)  # prange counts in uint64
        xs, ys, zs = np.empty(pixels, np.float32), np.empty(pixels, np.float32), np.empty(pixels, np.float32)
        for v in range(views):
            _project(points[s, v], world_to_cam[b], intrinsics[b], xs, ys, zs)
            _splat_view(xs, ys, zs, mask[s, v], values[s, v], normaliser[b], height, width, result[b])
