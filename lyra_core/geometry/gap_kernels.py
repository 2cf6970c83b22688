"""Closes the gaps of warps on the CPU, frame by frame on several threads; lyra_core.geometry.gaps has the shapes."""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import numba
import numpy as np

from lyra_core.jit import jit


@jit()
def _fill_line(values, depth, landed, filled, weight, gap_px, same_surface):
    """Add to one row or column what lies between its landed pixels; values [c n], filled [c+1 n], weight [n]."""
    channels, size = values.shape
    last = -1
    for place in range(size):
        if not landed[place]:
            continue
        width = place - last - 1
        if last >= 0 and 0 < width <= gap_px:
            near, far = depth[last], depth[place]
            if abs(near - far) <= same_surface * min(near, far):
                trust = np.float32(1.0) / np.float32(width)
                for hole in range(last + 1, place):
                    share = np.float32(hole - last) / np.float32(place - last)
                    for c in range(channels):
                        between = values[c, last] + share * (values[c, place] - values[c, last])
                        filled[c, hole] += trust * between
                    filled[channels, hole] += trust * (near + share * (far - near))
                    weight[hole] += trust
        last = place


@jit(parallel=True)
def close_frames(values, depth, landed, gap_px, same_surface, passes):
    """Close gaps in place: values [k c h w] and depth [k h w] float32, landed [k h w]."""
    frames, channels, height, width = values.shape
    for k in numba.prange(frames):
        for _ in range(passes):
            filled = np.zeros((channels + 1, height, width), np.float32)
            weight = np.zeros((height, width), np.float32)
            for row in range(height):
                _fill_line(
                    values[k, :, row], depth[k, row], landed[k, row], filled[:, row], weight[row], gap_px, same_surface
                )
            for column in range(width):
                _fill_line(
                    values[k, :, :, column],
                    depth[k, :, column],
                    landed[k, :, column],
                    filled[:, :, column],
                    weight[:, column],
                    gap_px,
                    same_surface,
                )
            for row in range(height):
                for column in range(width):
                    if weight[row, column] > 0 and not landed[k, row, column]:
                        for c in range(channels):
                            values[k, c, row, column] = filled[c, row, column] / weight[row, column]
                        depth[k, row, column] = filled[channels, row, column] / weight[row, column]
                        landed[k, row, column] = True
