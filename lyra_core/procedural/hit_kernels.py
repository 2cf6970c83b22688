"""Where a ray of the fused renderer meets shapes and terrain first: the Triton side of `intersect`.

The arithmetic is that of the plain reference in `intersect`, which it is compared with. Needs Triton.
"""
# mypy: disable-error-code="no-untyped-def,import-not-found,import-untyped"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import triton.language as tl

from lyra_core.geometry.splat_gpu_kernels import kernel
from lyra_core.procedural.intersect import FAR_M, FINE_STEPS, MARCH_GROWTH, MARCH_START_M, MARCH_STEPS, NEAREST
from lyra_core.procedural.surroundings import WAVES

SHAPE_WIDTH = 9
WAVES_AT = 32

NEAREST_T = tl.constexpr(NEAREST)
FAR = tl.constexpr(FAR_M)
STEPS = tl.constexpr(MARCH_STEPS)
START = tl.constexpr(MARCH_START_M)
GROWTH = tl.constexpr(MARCH_GROWTH)
FINE = tl.constexpr(FINE_STEPS)
NUM_WAVES = tl.constexpr(WAVES)
WAVES_FROM = tl.constexpr(WAVES_AT)
SHAPE = tl.constexpr(SHAPE_WIDTH)


@kernel
def _safe(d):
    return tl.where(tl.abs(d) < 1e-9, 1e-9, d)


@kernel
def _sin(x):
    """Sine to about 1e-6 for the arguments met here: the library's is ten times the code, inlined at every call."""
    turns = tl.floor(x * 0.3183098861837907 + 0.5)
    r = (x - turns * 3.140625) - turns * 9.67653589793e-4
    square = r * r
    wave = 1.0 / 362880.0 - square / 39916800.0
    wave = -1.0 / 5040.0 + square * wave
    wave = 1.0 / 120.0 + square * wave
    wave = r * (1.0 + square * (-1.0 / 6.0 + square * wave))
    return wave * (1.0 - 2.0 * (turns - 2.0 * tl.floor(turns * 0.5)))


@kernel
def _open(x, y, z, porosity):
    field = _sin(11.0 * x + 4.0 * y) * _sin(12.0 * y - 5.0 * z) + _sin(13.0 * z + 6.0 * x + 2.0)
    fine = _sin(29.0 * x - 11.0 * z) * _sin(31.0 * y + 9.0 * x)
    return field + 0.7 * fine > 2.2 - 2.8 * porosity


@kernel
def _box(ox, oy, oz, dx, dy, dz, p):
    px, py, pz = ox - tl.load(p), oy - tl.load(p + 1), oz - tl.load(p + 2)
    cos, sin = tl.load(p + 6), tl.load(p + 7)
    qx, qz = cos * px + sin * pz, cos * pz - sin * px
    ix, iy, iz = 1 / _safe(cos * dx + sin * dz), 1 / _safe(dy), 1 / _safe(cos * dz - sin * dx)
    reach_x, reach_y, reach_z = (
        tl.load(p + 3) * tl.abs(ix),
        tl.load(p + 4) * tl.abs(iy),
        tl.load(p + 5) * tl.abs(iz),
    )
    near = tl.maximum(tl.maximum(-qx * ix - reach_x, -py * iy - reach_y), -qz * iz - reach_z)
    far = tl.minimum(tl.minimum(-qx * ix + reach_x, -py * iy + reach_y), -qz * iz + reach_z)
    return tl.where((near <= far) & (near > NEAREST_T), near, float("inf"))


@kernel
def _ellipsoid(ox, oy, oz, dx, dy, dz, p):
    px, pz = ox - tl.load(p), oz - tl.load(p + 2)
    cos, sin, porosity = tl.load(p + 6), tl.load(p + 7), tl.load(p + 8)
    rx, ry, rz = tl.load(p + 3), tl.load(p + 4), tl.load(p + 5)
    qx, qy, qz = (cos * px + sin * pz) / rx, (oy - tl.load(p + 1)) / ry, (cos * pz - sin * px) / rz
    ex, ey, ez = (cos * dx + sin * dz) / rx, dy / ry, (cos * dz - sin * dx) / rz
    a = ex * ex + ey * ey + ez * ez
    middle = -(qx * ex + qy * ey + qz * ez) / a
    x, y, z = qx + middle * ex, qy + middle * ey, qz + middle * ez
    inside = 1 - (x * x + y * y + z * z)
    reach = tl.sqrt(tl.maximum(inside, 0.0) / a)
    near = middle - reach
    t = near
    if porosity > 0:
        near_open = _open(x - reach * ex, y - reach * ey, z - reach * ez, porosity)
        far_open = _open(x + reach * ex, y + reach * ey, z + reach * ez, porosity)
        t = tl.where(near_open, tl.where(far_open, float("inf"), middle + reach), near)
    return tl.where((inside > 0) & (near > NEAREST_T), t, float("inf"))


@kernel
def _frustum(ox, oy, oz, dx, dy, dz, p):
    px, pz, up, rise = ox - tl.load(p), oz - tl.load(p + 2), tl.load(p + 1) - oy, -dy
    bottom, height, top = tl.load(p + 3), tl.load(p + 4), tl.load(p + 5)
    taper = (top - bottom) / height
    flat = dx * dx + dz * dz
    shift = tl.maximum(-(px * dx + pz * dz) / tl.maximum(flat, 1e-9), 0.0)
    x, z, y = px + shift * dx, pz + shift * dz, up + shift * rise
    radius = bottom + taper * y
    a = flat - (taper * rise) * (taper * rise)
    a = tl.where(tl.abs(a) < 1e-9, 1e-9, a)
    half_b = x * dx + z * dz - taper * rise * radius
    discriminant = half_b * half_b - a * (x * x + z * z - radius * radius)
    root = tl.sqrt(tl.maximum(discriminant, 0.0))
    s = (-half_b - root) / a
    good = (discriminant > 0) & (y + s * rise >= 0) & (y + s * rise <= height) & (s + shift > NEAREST_T)
    best = tl.where(good, s + shift, float("inf"))
    s = (-half_b + root) / a
    good = (discriminant > 0) & (y + s * rise >= 0) & (y + s * rise <= height) & (s + shift > NEAREST_T)
    best = tl.where(good, tl.minimum(best, s + shift), best)
    t = (0.0 - up) / _safe(rise)
    cx, cz = px + t * dx, pz + t * dz
    best = tl.where((cx * cx + cz * cz <= bottom * bottom) & (t > NEAREST_T), tl.minimum(best, t), best)
    t = (height - up) / _safe(rise)
    cx, cz = px + t * dx, pz + t * dz
    return tl.where((cx * cx + cz * cz <= top * top) & (t > NEAREST_T), tl.minimum(best, t), best)


@kernel
def nearest_shape(ox, oy, oz, dx, dy, dz, shapes, scene, first_e, first_f, ground):
    """Nearest shape of each ray, the ground left out."""
    best = tl.full(dx.shape, float("inf"), tl.float32)
    which = tl.full(dx.shape, 0, tl.int32) + ground
    for k in range(tl.load(scene + 27).to(tl.int32)):
        t = _box(ox, oy, oz, dx, dy, dz, shapes + k * SHAPE)
        which = tl.where(t < best, k, which)
        best = tl.minimum(best, t)
    for k in range(tl.load(scene + 28).to(tl.int32)):
        t = _ellipsoid(ox, oy, oz, dx, dy, dz, shapes + (first_e + k) * SHAPE)
        which = tl.where(t < best, first_e + k, which)
        best = tl.minimum(best, t)
    for k in range(tl.load(scene + 29).to(tl.int32)):
        t = _frustum(ox, oy, oz, dx, dy, dz, shapes + (first_f + k) * SHAPE)
        which = tl.where(t < best, first_f + k, which)
        best = tl.minimum(best, t)
    return best, which


@kernel
def terrain_height(x, z, scene):
    """Height of the ground above a point of the plane, metres."""
    waves = tl.zeros(x.shape, tl.float32)
    for s in range(NUM_WAVES):
        p = scene + WAVES_FROM + 5 * s
        phase = tl.load(p + 3)
        turn = tl.load(p + 1) * x + tl.load(p + 2) * z
        waves += tl.load(p) * (_sin(turn + phase) - tl.load(p + 4))
    return (1 + tl.load(scene + 24) * tl.minimum((x * x + z * z) / 6400.0, 6.0)) * waves


@kernel
def _above(ox, oy, oz, dx, dy, dz, t, scene):
    return -(oy + t * dy) - terrain_height(ox + t * dx, oz + t * dz, scene)


@kernel
def _wavy(ox, oy, oz, dx, dy, dz, length, limit, scene):
    """Where rays meet the wavy ground, if before `limit`: the march of intersect.hit_ground with early ends."""
    below = tl.full(dx.shape, float("inf"), tl.float32)
    distance = START
    step = 0
    pending = tl.max((limit * length > 0).to(tl.int32))
    while (step < STEPS) & (pending > 0):
        t = distance / length
        hit = (_above(ox, oy, oz, dx, dy, dz, t, scene) < 0) & (below == float("inf"))
        below = tl.where(hit, t, below)
        pending = tl.max(((below == float("inf")) & (t <= limit)).to(tl.int32))
        distance = distance * GROWTH
        step += 1
    is_hit = below < float("inf")
    below = tl.where(is_hit, below, 1.0)
    width = (below - below / GROWTH) / FINE
    coarse = below
    for fine in range(FINE):
        t = coarse - fine * width
        below = tl.where(_above(ox, oy, oz, dx, dy, dz, t, scene) < 0, tl.minimum(below, t), below)
    above = below - width
    t = below
    for _ in range(2):
        high = _above(ox, oy, oz, dx, dy, dz, above, scene)
        low = _above(ox, oy, oz, dx, dy, dz, below, scene)
        share = tl.minimum(tl.maximum(high / _safe(high - low), 0.0), 1.0)
        t = above + (below - above) * share
        under = _above(ox, oy, oz, dx, dy, dz, t, scene) < 0
        above, below = tl.where(under, above, t), tl.where(under, t, below)
    return tl.where(is_hit, t, float("inf"))


@kernel
def first_hit(ox, oy, oz, dx, dy, dz, shapes, scene, first_e, first_f, ground):
    """Nearest hit of each ray, the ground included; shape `ground` where nothing is hit."""
    best, which = nearest_shape(ox, oy, oz, dx, dy, dz, shapes, scene, first_e, first_f, ground)
    length = tl.sqrt(dx * dx + dy * dy + dz * dz)
    if tl.load(scene + 26) > 0:
        t = -oy / _safe(dy)
        ground_t = tl.where((dy > 0) & (t > NEAREST_T), t, float("inf"))
    else:
        ground_t = _wavy(ox, oy, oz, dx, dy, dz, length, tl.minimum(best, FAR / length), scene)
    ground_t = tl.where(ground_t * length < FAR, ground_t, float("inf"))
    which = tl.where(ground_t <= best, ground, which)
    return tl.minimum(best, ground_t), which
