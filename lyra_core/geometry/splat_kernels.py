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

from lyra_core.gaussians.jit import jit

_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_EPS = np.float32(1e-7)
_SHARPNESS = np.float32(50.0)
_MAX_EXPONENT = np.float32(80.0)


@jit(inline="always")
def _to_camera(world_to_cam, x, y, z):
    cam_x = world_to_cam[0, 0] * x + world_to_cam[0, 1] * y + world_to_cam[0, 2] * z + world_to_cam[0, 3]
    cam_y = world_to_cam[1, 0] * x + world_to_cam[1, 1] * y + world_to_cam[1, 2] * z + world_to_cam[1, 3]
    cam_z = world_to_cam[2, 0] * x + world_to_cam[2, 1] * y + world_to_cam[2, 2] * z + world_to_cam[2, 3]
    return cam_x, cam_y, cam_z


@jit(inline="always")
def _to_image(intrinsics, x, y, z):
    image_x = intrinsics[0, 0] * x + intrinsics[0, 1] * y + intrinsics[0, 2] * z
    image_y = intrinsics[1, 0] * x + intrinsics[1, 1] * y + intrinsics[1, 2] * z
    image_z = intrinsics[2, 0] * x + intrinsics[2, 1] * y + intrinsics[2, 2] * z
    return image_x, image_y, image_z


@jit(parallel=True)
def max_log_depth(points, mask, world_to_cam, intrinsics, only_valid, result):
    """Per target, the largest log(1 + Z) over source pixels; points [s v n 3], mask [s v n], result [b]."""
    sources, views, pixels = mask.shape
    for b in numba.prange(world_to_cam.shape[0]):
        s = np.int64(b) if sources > 1 else np.int64(0)  # prange counts in uint64
        largest = _ZERO
        for v in range(views):
            for i in range(pixels):
                if only_valid and not mask[s, v, i]:
                    continue
                x, y, z = _to_camera(world_to_cam[b], points[s, v, i, 0], points[s, v, i, 1], points[s, v, i, 2])
                _, _, depth = _to_image(intrinsics[b], x, y, z)
                if depth > largest:
                    largest = depth
        result[b] = np.float32(math.log(_ONE + largest))


@jit(inline="always")
def _add(canvas, row, column, height, width, values, depth, weight, pixel):
    # Rows and columns 0 and height+1, width+1 are the border that swallows what falls outside.
    if row < 1 or column < 1 or row > height or column > width:
        return
    channels = values.shape[0]
    cell = (row - 1) * width + column - 1
    for c in range(channels):
        canvas[cell, c] += values[c, pixel] * weight
    canvas[cell, channels] += depth * weight
    canvas[cell, channels + 1] += weight


@jit(parallel=True)
def splat(
    points,
    mask,
    values,
    world_to_cam,
    intrinsics,
    normaliser,
    height,
    width,
    result,
):
    """Accumulate weighted values, depth and weight; values [s v c n], result [b n c+2] zeros on entry."""
    sources, views, pixels = mask.shape
    last_x, last_y = np.float32(width + 1), np.float32(height + 1)
    for b in numba.prange(world_to_cam.shape[0]):
        s = np.int64(b) if sources > 1 else np.int64(0)  # prange counts in uint64
        canvas = result[b]
        for v in range(views):
            for i in range(pixels):
                if not mask[s, v, i]:
                    continue
                x, y, z = _to_camera(world_to_cam[b], points[s, v, i, 0], points[s, v, i, 1], points[s, v, i, 2])
                x, y, z = _to_image(intrinsics[b], x, y, z)
                if z <= _ZERO:
                    continue
                # Through the displacement and back, like the reference: it rounds, and rounding opens or closes holes.
                grid_x, grid_y = np.float32(i % width), np.float32(i // width)
                column = (x / (z + _EPS) - grid_x) + grid_x + _ONE
                row = (y / (z + _EPS) - grid_y) + grid_y + _ONE
                if not (_ZERO < column < last_x and _ZERO < row < last_y):
                    continue
                left, right = np.float32(math.floor(column)), np.float32(math.ceil(column))
                top, bottom = np.float32(math.floor(row)), np.float32(math.ceil(row))
                near_left, near_right = _ONE - (column - left), _ONE - (right - column)
                near_top, near_bottom = _ONE - (row - top), _ONE - (bottom - row)
                exponent = np.float32(math.log(_ONE + z)) / (normaliser[b] + _EPS) * _SHARPNESS
                if exponent > _MAX_EXPONENT:
                    exponent = _MAX_EXPONENT
                nearness = np.float32(math.exp(exponent)) + _EPS
                t, l, u, r = int(top), int(left), int(bottom), int(right)  # noqa: E741
                image = values[s, v]
                _add(canvas, t, l, height, width, image, z, near_top * near_left / nearness, i)
                _add(canvas, u, l, height, width, image, z, near_bottom * near_left / nearness, i)
                _add(canvas, t, r, height, width, image, z, near_top * near_right / nearness, i)
                _add(canvas, u, r, height, width, image, z, near_bottom * near_right / nearness, i)
