"""The fast CPU path of intersect: the same closed forms, ray by ray, compiled, with early exits.

`intersect` is the plain reference and the GPU path; a test compares the two.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.jit import jit
from lyra_core.procedural.intersect import (
    FAR_M,
    FINE_STEPS,
    MARCH_GROWTH,
    MARCH_START_M,
    MARCH_STEPS,
    NEAREST,
    Hits,
)
from lyra_core.procedural.primitives import PARKED_M, Boxes, Ellipsoids, Frusta, Ground

PARKED = 0.5 * PARKED_M

# The kernels carry no shape annotations: the shape checker of the tests cannot see into compiled code.


@jit()
def _slab(o, d, half):
    if abs(d) < 1e-9:
        d = 1e-9
    middle, reach = -o / d, half / abs(d)
    return middle - reach, middle + reach


@jit()
def _box(ox, oy, oz, dx, dy, dz, shape, limit):
    near, far = _slab(oy - shape[1], dy, shape[4])
    if near > far or far < NEAREST or near >= limit:
        return np.inf
    px, pz, cos, sin = ox - shape[0], oz - shape[2], shape[6], shape[7]
    low, high = _slab(cos * px + sin * pz, cos * dx + sin * dz, shape[3])
    near, far = max(near, low), min(far, high)
    if near > far or near >= limit:
        return np.inf
    low, high = _slab(cos * pz - sin * px, cos * dz - sin * dx, shape[5])
    near, far = max(near, low), min(far, high)
    return near if near <= far and near > NEAREST and near < limit else np.inf


@jit()
def _open(x, y, z, porosity):
    field = math.sin(11.0 * x + 4.0 * y) * math.sin(12.0 * y - 5.0 * z) + math.sin(13.0 * z + 6.0 * x + 2.0)
    fine = math.sin(29.0 * x - 11.0 * z) * math.sin(31.0 * y + 9.0 * x)
    return field + 0.7 * fine > 2.2 - 2.8 * porosity


@jit()
def _ellipsoid(ox, oy, oz, dx, dy, dz, shape, limit):
    px, pz, cos, sin, porosity = ox - shape[0], oz - shape[2], shape[6], shape[7], shape[8]
    qx, qy, qz = (cos * px + sin * pz) / shape[3], (oy - shape[1]) / shape[4], (cos * pz - sin * px) / shape[5]
    ex, ey, ez = (cos * dx + sin * dz) / shape[3], dy / shape[4], (cos * dz - sin * dx) / shape[5]
    a = ex * ex + ey * ey + ez * ez
    middle = -(qx * ex + qy * ey + qz * ez) / a
    x, y, z = qx + middle * ex, qy + middle * ey, qz + middle * ez
    inside = 1 - (x * x + y * y + z * z)
    if inside <= 0:
        return np.inf
    reach = math.sqrt(inside / a)
    near = middle - reach
    if near <= NEAREST or near >= limit:
        return np.inf
    if porosity > 0 and _open(x - reach * ex, y - reach * ey, z - reach * ez, porosity):
        if _open(x + reach * ex, y + reach * ey, z + reach * ez, porosity) or middle + reach >= limit:
            return np.inf
        return middle + reach
    return near


@jit()
def _frustum(ox, oy, oz, dx, dy, dz, shape, limit):
    px, pz, up, rise = ox - shape[0], oz - shape[2], shape[1] - oy, -dy
    bottom, height, top = shape[3], shape[4], shape[5]
    taper = (top - bottom) / height
    flat = dx * dx + dz * dz
    shift = max(-(px * dx + pz * dz) / max(flat, 1e-9), 0.0)
    x, z, y = px + shift * dx, pz + shift * dz, up + shift * rise
    wide = max(bottom, top)
    if x * x + z * z > wide * wide and shift > 0:
        return np.inf
    radius = bottom + taper * y
    a = flat - (taper * rise) ** 2
    if abs(a) < 1e-9:
        a = 1e-9
    half_b = x * dx + z * dz - taper * rise * radius
    discriminant = half_b * half_b - a * (x * x + z * z - radius * radius)
    best = limit
    if discriminant > 0:
        root = math.sqrt(discriminant)
        for s in ((-half_b - root) / a, (-half_b + root) / a):
            t, at = s + shift, y + s * rise
            if 0 <= at <= height and NEAREST < t < best:
                best = t
    if abs(rise) < 1e-9:
        rise = 1e-9
    for end in range(2):
        level, r = (height, top) if end else (height - height, bottom)
        t = (level - up) / rise
        cx, cz = px + t * dx, pz + t * dz
        if cx * cx + cz * cz <= r * r and NEAREST < t < best:
            best = t
    return best if best < limit else np.inf


@jit()
def _above(o, d, t, rise, waves):
    x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
    total = 0.0
    for s in range(waves.shape[0]):
        turn = waves[s, 1] * x + waves[s, 2] * z
        total += waves[s, 0] * (math.sin(turn + waves[s, 3]) - math.sin(waves[s, 3]))
    return -y - (1 + rise * min((x * x + z * z) / 6400.0, 6.0)) * total


@jit()
def _ground(o, d, rise, waves, is_flat):
    if is_flat:
        t = -o[1] / d[1] if d[1] > 1e-9 else np.inf
        return t if t > NEAREST else np.inf
    length = math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    below, distance = np.inf, MARCH_START_M
    for _ in range(MARCH_STEPS):
        t = distance / length
        if _above(o, d, t, rise, waves) < 0:
            below = t
            break
        distance *= MARCH_GROWTH
    if below == np.inf:
        return np.inf
    width = (below - below / MARCH_GROWTH) / FINE_STEPS
    for step in range(FINE_STEPS - 1, 0, -1):
        t = below - step * width
        if _above(o, d, t, rise, waves) < 0:
            below = t
            break
    above = below - width
    t = below
    for _ in range(2):
        high, low = _above(o, d, above, rise, waves), _above(o, d, below, rise, waves)
        share = high / (high - low) if high != low else 0.0
        t = above + (below - above) * min(max(share, 0.0), 1.0)
        if _above(o, d, t, rise, waves) < 0:
            below = t
        else:
            above = t
    return t


@jit(parallel=True)
def _nearest(origin, direction, boxes, ellipsoids, frusta, rise, waves, is_flat, out_t, out_shape):
    count_b, count_e, count_f = len(boxes), len(ellipsoids), len(frusta)
    for ray in numba.prange(len(origin)):
        o, d = origin[ray], direction[ray]
        ox, oy, oz, dx, dy, dz = o[0], o[1], o[2], d[0], d[1], d[2]
        best, which = _ground(o, d, rise, waves, is_flat), count_b + count_e + count_f
        if best * math.sqrt(dx * dx + dy * dy + dz * dz) >= FAR_M:
            best = np.inf
        for k in range(count_b):
            if boxes[k, 1] < PARKED:
                t = _box(ox, oy, oz, dx, dy, dz, boxes[k], best)
                if t < best:
                    best, which = t, k
        for k in range(count_e):
            if ellipsoids[k, 1] < PARKED:
                t = _ellipsoid(ox, oy, oz, dx, dy, dz, ellipsoids[k], best)
                if t < best:
                    best, which = t, count_b + k
        for k in range(count_f):
            if frusta[k, 1] < PARKED:
                t = _frustum(ox, oy, oz, dx, dy, dz, frusta[k], best)
                if t < best:
                    best, which = t, count_b + count_e + k
        out_t[ray], out_shape[ray] = best, which


@jit(parallel=True)
def _blocked(origin, direction, reach, boxes, ellipsoids, frusta, out):
    for ray in numba.prange(len(origin)):
        o, d, limit = origin[ray], direction[ray], reach[ray]
        ox, oy, oz, dx, dy, dz = o[0], o[1], o[2], d[0], d[1], d[2]
        hit = False
        for k in range(len(boxes)):
            if boxes[k, 1] < PARKED and _box(ox, oy, oz, dx, dy, dz, boxes[k], limit) < limit:
                hit = True
                break
        if not hit:
            for k in range(len(ellipsoids)):
                if ellipsoids[k, 1] < PARKED and _ellipsoid(ox, oy, oz, dx, dy, dz, ellipsoids[k], limit) < limit:
                    hit = True
                    break
        if not hit:
            for k in range(len(frusta)):
                if frusta[k, 1] < PARKED and _frustum(ox, oy, oz, dx, dy, dz, frusta[k], limit) < limit:
                    hit = True
                    break
        out[ray] = 1.0 if hit else 0.0


def _follow_torch() -> None:
    """As many threads as torch uses: two pools that both spin for work on a busy machine cost ten times the work."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _tables(boxes: Boxes, ellipsoids: Ellipsoids, frusta: Frusta) -> list[np.ndarray]:
    return [
        torch.cat([boxes.center, boxes.half, boxes.heading], -1).numpy(),
        torch.cat([ellipsoids.center, ellipsoids.half, ellipsoids.heading, ellipsoids.porosity[..., None]], -1).numpy(),
        torch.cat([frusta.center, frusta.half], -1).numpy(),
    ]


def nearest_hits_cpu(
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    boxes: Boxes,
    ellipsoids: Ellipsoids,
    frusta: Frusta,
    ground: Ground,
    *,
    is_flat: bool,
) -> Hits:
    """The first shape, or the ground, each ray meets, as ray_cast.nearest_hits; float32 tensors on the CPU."""
    _follow_torch()
    tables = _tables(boxes, ellipsoids, frusta)
    waves = torch.cat([ground.amplitude[..., None], ground.wave, ground.phase[..., None]], -1).numpy()
    t = torch.empty(origin.shape[:2])
    shape = torch.empty(origin.shape[:2], dtype=torch.int64)
    for b in range(origin.shape[0]):
        _nearest(
            origin[b].contiguous().numpy(),
            direction[b].contiguous().numpy(),
            *(table[b] for table in tables),
            float(ground.rise[b]),
            waves[b],
            is_flat,
            t[b].numpy(),
            shape[b].numpy(),
        )
    return Hits(t=t, shape=shape)


def blocked_cpu(
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    reach: Float[Tensor, "b r"],
    boxes: Boxes,
    ellipsoids: Ellipsoids,
    frusta: Frusta,
) -> Float[Tensor, "b r"]:
    """As intersect.blocked, for float32 tensors on the CPU."""
    _follow_torch()
    tables = _tables(boxes, ellipsoids, frusta)
    out = torch.empty(origin.shape[:2])
    for b in range(origin.shape[0]):
        _blocked(
            origin[b].contiguous().numpy(),
            direction[b].contiguous().numpy(),
            reach[b].contiguous().numpy(),
            *(table[b] for table in tables),
            out[b].numpy(),
        )
    return out
