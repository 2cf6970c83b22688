"""The compiled loop that hands pixel values back to the Gaussians that drew them, weighted by their share of the pixel.

Kernels carry no annotations on purpose: a shape-checking import hook would wrap them before numba sees them. Their
typed entrance is `lyra_core.gaussians.backproject`.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, RUF046 - numba wants the integer spelled out

from __future__ import annotations

import math

import numba
import numpy as np

from lyra_core.gaussians.rasterize_kernels import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE
from lyra_core.jit import jit


@jit()
def _backproject_tile(ordered, members, left, top, values, out):
    height, width = values.shape[:2]
    rows, columns = min(TILE, height - top), min(TILE, width - left)
    one = np.float32(1.0)
    transmittance = np.ones((TILE, TILE), np.float32)
    live = rows * columns
    done = np.zeros((TILE, TILE), np.bool_)
    for m in range(members.shape[0]):
        splat = ordered[members[m]]
        px, py, rx, ry = splat[0], splat[1], splat[10], splat[11]
        for y in range(max(0, int(math.floor(py - ry)) - top), min(rows, int(math.ceil(py + ry)) - top)):
            dy = py - np.float32(top + y) - np.float32(0.5)
            for x in range(max(0, int(math.floor(px - rx)) - left), min(columns, int(math.ceil(px + rx)) - left)):
                if done[y, x]:
                    continue
                dx = px - np.float32(left + x) - np.float32(0.5)
                sigma = np.float32(0.5) * (splat[2] * dx * dx + splat[4] * dy * dy) + splat[3] * dx * dy
                if sigma < np.float32(0.0):
                    continue
                alpha = min(MAX_ALPHA, splat[5] * math.exp(-sigma))
                if alpha < MIN_ALPHA:
                    continue
                remaining = transmittance[y, x] * (one - alpha)
                if remaining <= MIN_TRANSMITTANCE:
                    done[y, x] = True
                    live -= 1
                    continue
                weight = alpha * transmittance[y, x]
                transmittance[y, x] = remaining
                out[m, 0] += weight
                out[m, 1] += weight * values[top + y, left + x, 0]
                out[m, 2] += weight * values[top + y, left + x, 1]
                out[m, 3] += weight * values[top + y, left + x, 2]
        if live == 0:
            break


@jit(parallel=True)
def backproject(ordered, order, starts, members, tiles_x, tiles_y, values, totals):
    """Add to `totals` [n 4] each Gaussian's sum of alpha * T over pixels, and of alpha * T * values [h w 3]."""
    shares = np.zeros((members.shape[0], 4), np.float32)
    for tile in numba.prange(tiles_x * tiles_y):
        first, last = starts[tile], starts[tile + 1]
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        _backproject_tile(ordered, members[first:last], left, top, values, shares[first:last])
    # Added up by one thread in the order of tiles: sums do not depend on how many threads there are.
    for j in range(members.shape[0]):
        i = order[members[j]]
        for c in range(4):
            totals[i, c] += shares[j, c]
