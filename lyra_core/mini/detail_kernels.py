"""Compiled loops of super-resolution on a CPU: what goes into the network, and frames from what comes out.

The numbers of `Reference.seen` and `SuperResolution.compose`, which are the plain reference; a test compares them. One
loop warps a picture, samples it and writes it as channels, where the tensors of the plain path would go through the
cache a dozen times.

Channels of a 4x4 block are in the order of torch's pixel_unshuffle: colour, then row, then column.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, C901

from __future__ import annotations

import math

import numba
import numpy as np

from lyra_core.jit import jit

_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1.0), np.float32(0.0)
_SCALE = np.float32(1 / 127.5)
_NEAREST_RATIO = np.float32(1e-3)
_CUBIC = np.float32(-0.75)  # as torch has it


@jit()
def _take(picture, x, y, share, red_green_blue):
    """Add a bilinear sample at pixel coordinates (centres at +0.5), borders repeated; picture [rows columns 3]."""
    rows, columns = picture.shape[0], picture.shape[1]
    x = min(max(x - _HALF, _ZERO), np.float32(columns - 1))
    y = min(max(y - _HALF, _ZERO), np.float32(rows - 1))
    left, top = np.int64(x), np.int64(y)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    fx, fy = x - np.float32(left), y - np.float32(top)
    a, b = (_ONE - fx) * (_ONE - fy) * share, fx * (_ONE - fy) * share
    c, d = (_ONE - fx) * fy * share, fx * fy * share
    for color in range(3):
        red_green_blue[color] += (
            a * picture[top, left, color]
            + b * picture[top, right, color]
            + c * picture[bottom, left, color]
            + d * picture[bottom, right, color]
        )


@jit(parallel=True)
def warp_blocks(fine, half, quarter, inverse, is_edge, cover, matrix, offset, zoom, shift, low, first, out):
    """Write one reference's channels of the network's input.

    fine, half, quarter: levels of the picture, bytes [rows columns 3]; inverse, cover [h w]; is_edge [h w] bool; matrix
    [3 3]; offset [3]; shift [h w 2], low-resolution pixels; low [h w 3] in [-1, 1]; out [h w channels], of which those
    from `first` are written: 48 of the picture less the frame's pixel, cover, logarithm of the ratio.
    """
    height, width = inverse.shape
    for row in numba.prange(height):
        color = np.empty(3, np.float32)
        for column in range(width):
            known = cover[row, column]
            for channel in range(50):
                out[row, column, first + channel] = _ZERO
            if known <= _ZERO:
                continue
            x, y, deep = np.float32(column) + _HALF, np.float32(row) + _HALF, inverse[row, column]
            nearness = max(matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] + offset[2] * deep, _NEAREST_RATIO)
            u = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + offset[0] * deep) / nearness
            v = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + offset[1] * deep) / nearness
            if u < _ZERO or v < _ZERO or u > np.float32(width) or v > np.float32(height):
                continue  # beyond the picture's border
            pixel_ratio = min(max(zoom / nearness, np.float32(0.125)), np.float32(8))
            for down in range(4):
                y = np.float32(row) + (np.float32(down) + _HALF) * np.float32(0.25)
                for across in range(4):
                    x = np.float32(column) + (np.float32(across) + _HALF) * np.float32(0.25)
                    left, top = np.int64(math.floor(x - _HALF)), np.int64(math.floor(y - _HALF))
                    fx, fy = x - _HALF - np.float32(left), y - _HALF - np.float32(top)
                    deep, weight, moved_x, moved_y = _ZERO, _ZERO, _ZERO, _ZERO
                    for corner in range(4):
                        r = min(max(top + corner // 2, 0), height - 1)
                        c = min(max(left + corner % 2, 0), width - 1)
                        w = (fx if corner % 2 else _ONE - fx) * (fy if corner // 2 else _ONE - fy)
                        moved_x += w * shift[r, c, 0]
                        moved_y += w * shift[r, c, 1]
                        if inverse[r, c] > _ZERO:
                            deep += w * inverse[r, c]
                            weight += w
                    here = inverse[row, column] if is_edge[row, column] else deep / max(weight, np.float32(1e-6))
                    image_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + offset[0] * here
                    image_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + offset[1] * here
                    nearness = max(
                        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] + offset[2] * here, _NEAREST_RATIO
                    )
                    u, v = image_x / nearness + moved_x, image_y / nearness + moved_y
                    ratio = zoom / nearness
                    color[0], color[1], color[2] = _ZERO, _ZERO, _ZERO
                    if ratio <= _ONE:
                        _take(fine, u * np.float32(8), v * np.float32(8), _ONE, color)
                    else:
                        lod = min(np.float32(math.log2(ratio)), np.float32(2))
                        if lod < _ONE:
                            _take(fine, u * np.float32(8), v * np.float32(8), _ONE - lod, color)
                            _take(half, u * np.float32(2), v * np.float32(2), lod, color)
                        else:
                            _take(half, u * np.float32(2), v * np.float32(2), np.float32(2) - lod, color)
                            _take(quarter, u, v, lod - _ONE, color)
                    at = first + 4 * down + across
                    for k in range(3):
                        out[row, column, at + 16 * k] = (color[k] * _SCALE - _ONE - low[row, column, k]) * known
            out[row, column, first + 48] = known
            out[row, column, first + 49] = np.float32(math.log2(pixel_ratio)) * known


@jit()
def _cubic_weights(weights):
    """Bicubic weights of the four pixels around each of four places between pixels; weights [4 places 4 taps]."""
    for place in range(4):
        t = (np.float32(place) + _HALF) * np.float32(0.25) - _HALF
        t = t + _ONE if t < _ZERO else t
        for tap in range(4):
            d = abs(t + _ONE - np.float32(tap))
            if d <= _ONE:
                weights[place, tap] = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
            else:
                weights[place, tap] = ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC


@jit(parallel=True)
def compose_frame(low, features, head, frame):
    """Enlarge one frame.

    low: [h w 3] in [-1, 1]; features: the network's input [h w channels]; head: its output [h w 80]; frame: receives
    bytes [4h 4w 3].
    """
    height, width = low.shape[:2]
    weights = np.empty((4, 4), np.float32)
    _cubic_weights(weights)
    for row in numba.prange(height):
        lines, base = np.empty((5, 4, 3), np.float32), np.empty((3, 16), np.float32)
        shares = np.empty((2, 16), np.float32)
        for column in range(width):
            for near in range(5):
                r = min(max(row + near - 2, 0), height - 1)
                for place in range(4):
                    start = column - 2 if place < 2 else column - 1
                    for k in range(3):
                        total = _ZERO
                        for tap in range(4):
                            total += weights[place, tap] * low[r, min(max(start + tap, 0), width - 1), k]
                        lines[near, place, k] = total
            for down in range(4):
                start = 0 if down < 2 else 1
                for across in range(4):
                    for k in range(3):
                        total = _ZERO
                        for tap in range(4):
                            total += weights[down, tap] * lines[start + tap, across, k]
                        base[k, 4 * down + across] = total
            for pixel in range(16):
                a, b = head[row, column, 48 + pixel], head[row, column, 64 + pixel]
                largest = max(a, b, _ZERO)
                ea, eb = np.float32(math.exp(a - largest)), np.float32(math.exp(b - largest))
                total = ea + eb + np.float32(math.exp(-largest))
                shares[0, pixel], shares[1, pixel] = ea / total, eb / total
            known0, known1 = features[row, column, 51], features[row, column, 101]
            for k in range(3):
                mean, mean0, mean1 = _ZERO, _ZERO, _ZERO
                for pixel in range(16):
                    mean += base[k, pixel]
                    mean0 += features[row, column, 3 + 16 * k + pixel]
                    mean1 += features[row, column, 53 + 16 * k + pixel]
                mean, mean0, mean1 = mean / 16, mean0 / 16, mean1 / 16
                for pixel in range(16):
                    own = base[k, pixel] - mean
                    value = base[k, pixel] + head[row, column, 16 * k + pixel]
                    value += shares[0, pixel] * (features[row, column, 3 + 16 * k + pixel] - mean0 - known0 * own)
                    value += shares[1, pixel] * (features[row, column, 53 + 16 * k + pixel] - mean1 - known1 * own)
                    level = (min(max(value, -_ONE), _ONE) + _ONE) * np.float32(127.5)
                    frame[4 * row + pixel // 4, 4 * column + pixel % 4, k] = np.uint8(np.rint(level))
