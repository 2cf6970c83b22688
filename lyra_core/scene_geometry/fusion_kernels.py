"""Depth of several frames into one volume, voxel by voxel on several threads; `fusion` has the shapes."""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import numba
import numpy as np

from lyra_core.jit import jit

LEAST_FACING = 0.1  # depth of what is seen more flatly is hardly known
SAME_SURFACE = (
    0.15  # relative difference of depths up to which they are interpolated: a floor far ahead has a tenth a row
)


@jit()
def _depth_at(depth, u, v):
    """Depth at a place of an image, pixel centres at +0.5: bilinear in 1/depth within a surface, else of the pixel."""
    height, width = depth.shape
    column, row = int(np.floor(u)), int(np.floor(v))
    if column < 0 or row < 0 or column >= width or row >= height:
        return 0.0
    own = depth[row, column]
    if own <= 0.0:
        return 0.0
    left, top = int(np.floor(u - 0.5)), int(np.floor(v - 0.5))
    if left < 0 or top < 0 or left + 1 >= width or top + 1 >= height:
        return own
    inverse = 0.0
    a, b = u - 0.5 - left, v - 0.5 - top
    for down in range(2):
        for right in range(2):
            other = depth[top + down, left + right]
            if other <= 0.0 or abs(other - own) > SAME_SURFACE * own:
                return own
            inverse += (a if right else 1.0 - a) * (b if down else 1.0 - b) / other
    return 1.0 / inverse


@jit(parallel=True)
def fuse(depth, facing, world_to_cam, lenses, origin, voxel, truncation, truncation_share, values, weights):
    """Weighted means of truncated signed distances (Curless and Levoy 1996), 1 in front and -1 behind a surface.

    Distances are taken across the surface: along the ray those of a floor seen from low above are many times as long,
    and the floor would be cut off a voxel below itself.

    depth and facing (cosine between ray and normal) [t h w], world_to_cam [t 4 4], lenses [t 4] (fx fy cx cy); values
    and weights [x y z] are filled.
    """
    size_x, size_y, size_z = values.shape
    for i in numba.prange(size_x):
        for j in range(size_y):
            for k in range(size_z):
                x, y, z = origin[0] + i * voxel, origin[1] + j * voxel, origin[2] + k * voxel
                total, weight = 0.0, 0.0
                for t in range(depth.shape[0]):
                    m = world_to_cam[t]
                    cz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                    if cz <= 0.0:
                        continue
                    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    u, v = lenses[t, 0] * cx / cz + lenses[t, 2], lenses[t, 1] * cy / cz + lenses[t, 3]
                    seen = _depth_at(depth[t], u, v)
                    if seen <= 0.0:
                        continue
                    cosine = max(facing[t, int(np.floor(v)), int(np.floor(u))], LEAST_FACING)
                    distance = cosine * (seen - cz) * np.sqrt(cx * cx + cy * cy + cz * cz) / cz
                    reach = max(truncation, truncation_share * cosine * seen)
                    if distance < -reach:
                        continue
                    trust = cosine / (seen * seen)
                    total += trust * min(1.0, distance / reach)
                    weight += trust
                if weight > 0.0:
                    values[i, j, k] = total / weight
                    weights[i, j, k] = weight


@jit()
def components(faces, num_vertices):
    """A number for each face that all faces connected with it share."""
    parent = np.arange(num_vertices)
    for f in range(len(faces)):
        for corner in range(1, 3):
            a, b = faces[f, 0], faces[f, corner]
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a != b:
                parent[max(a, b)] = min(a, b)
    labels = np.empty(len(faces), np.int64)
    for f in range(len(faces)):
        a = faces[f, 0]
        while parent[a] != a:
            a = parent[a]
        labels[f] = a
    return labels
