"""The compiled loops of the CPU rasteriser: project, sort by depth, bin into tiles, composite.

Kernels carry no annotations on purpose: a shape-checking import hook would wrap them before numba
sees them. Their typed entrance is `lyra_core.gaussians.rasterize`.

One row of `splats` [n 12] float32: x, y (pixels), conic a, b, c (1/pixels^2), opacity, red, green, blue,
z-depth (metres), half extents x and y (pixels). `keys` [n] uint32 are the bits of the z-depth (monotone for
positive floats), or CULLED.
"""
# mypy: disable-error-code="no-untyped-def, operator"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import math

import numba
import numpy as np

from lyra_core.jit import jit
from lyra_core.spherical_harmonics import SH_C0, SH_C1, SH_C2

TILE = 16
LANES = 8  # pixels composited by one run of vector instructions
GROUPS = TILE // LANES  # such runs in a row of a tile
SPLAT_WIDTH = 12
CHANNELS = 5  # of one tile row: transmittance (negative once nothing further is drawn), red, green, blue, depth
MIN_ALPHA = np.float32(1.0 / 255.0)
MAX_ALPHA = np.float32(0.999)
MAX_EXTENT_SIGMA = np.float32(3.33)  # exp(-3.33^2 / 2) = 1/255: beyond it nothing is ever drawn
MIN_TRANSMITTANCE = np.float32(1e-4)
EXTENT_MARGIN = np.float32(0.01)  # pixels, against rounding of the extents
CULLED = np.uint32(0xFFFFFFFF)

# Real spherical harmonics in the sign convention of 3D Gaussian splatting (Kerbl et al. 2023), degree 0 to 3.
C0 = np.float32(SH_C0)
C1 = np.float32(SH_C1)
C2A, C2B, C2C = np.float32(SH_C2[0]), np.float32(SH_C2[2]), np.float32(SH_C2[4])
C3A = np.float32(0.5900435899266435)
C3B = np.float32(2.890611442640554)
C3C = np.float32(0.4570457994644658)
C3D = np.float32(0.3731763325901154)
C3E = np.float32(1.445305721320277)


@jit(inline="always")
def _sh_basis(x, y, z, num_coefficients, basis):
    basis[0] = C0
    if num_coefficients > 1:
        basis[1] = -C1 * y
        basis[2] = C1 * z
        basis[3] = -C1 * x
    if num_coefficients > 4:
        xx, yy, zz = x * x, y * y, z * z
        basis[4] = C2A * x * y
        basis[5] = -C2A * y * z
        basis[6] = C2B * (np.float32(2.0) * zz - xx - yy)
        basis[7] = -C2A * x * z
        basis[8] = C2C * (xx - yy)
        if num_coefficients > 9:
            basis[9] = -C3A * y * (np.float32(3.0) * xx - yy)
            basis[10] = C3B * x * y * z
            basis[11] = -C3C * y * (np.float32(4.0) * zz - xx - yy)
            basis[12] = C3D * z * (np.float32(2.0) * zz - np.float32(3.0) * (xx + yy))
            basis[13] = -C3C * x * (np.float32(4.0) * zz - xx - yy)
            basis[14] = C3E * z * (xx - yy)
            basis[15] = -C3A * x * (xx - np.float32(3.0) * yy)


@jit(parallel=True)
def project_splats(  # noqa: PLR0915 - one straight-line formula, which calls would only hide
    means, quats, scales, opacities, sh, w2c, camera, eps2d, near, far, splats, keys
):
    """EWA projection (Zwicker et al. 2001) of every Gaussian into one camera: fills `splats` and `keys`.

    `camera` [6] float32: fx, fy, cx, cy, width, height. Half extents and the clamp of the Jacobian's
    tangent follow the gsplat 1.5 'classic' rasteriser, so that images agree with it.
    """
    fx, fy, cx, cy, width, height = camera[0], camera[1], camera[2], camera[3], camera[4], camera[5]
    half = np.float32(0.5)
    two = np.float32(2.0)
    one = np.float32(1.0)
    margin_x = np.float32(0.3) * half * width / fx
    margin_y = np.float32(0.3) * half * height / fy
    lim_x_lo, lim_x_hi = -(cx / fx + margin_x), (width - cx) / fx + margin_x
    lim_y_lo, lim_y_hi = -(cy / fy + margin_y), (height - cy) / fy + margin_y
    # Squared lengths of the rows of J W in units of 1/z, at most.
    steep_x = fx * fx * (one + max(lim_x_lo * lim_x_lo, lim_x_hi * lim_x_hi))
    steep_y = fy * fy * (one + max(lim_y_lo * lim_y_lo, lim_y_hi * lim_y_hi))
    eye_x = -(w2c[0, 0] * w2c[0, 3] + w2c[1, 0] * w2c[1, 3] + w2c[2, 0] * w2c[2, 3])
    eye_y = -(w2c[0, 1] * w2c[0, 3] + w2c[1, 1] * w2c[1, 3] + w2c[2, 1] * w2c[2, 3])
    eye_z = -(w2c[0, 2] * w2c[0, 3] + w2c[1, 2] * w2c[1, 3] + w2c[2, 2] * w2c[2, 3])
    num_coefficients = sh.shape[1]
    n = means.shape[0]
    blocks = (n + 4095) // 4096
    for block in numba.prange(blocks):
        basis = np.zeros(16, np.float32)
        for i in range(block * 4096, min(n, (block + 1) * 4096)):
            keys[i] = CULLED
            mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
            z = w2c[2, 0] * mx + w2c[2, 1] * my + w2c[2, 2] * mz + w2c[2, 3]
            opacity = opacities[i]
            if not (z >= near and z <= far and opacity >= MIN_ALPHA):
                continue
            x = w2c[0, 0] * mx + w2c[0, 1] * my + w2c[0, 2] * mz + w2c[0, 3]
            y = w2c[1, 0] * mx + w2c[1, 1] * my + w2c[1, 2] * mz + w2c[1, 3]
            rz = one / z
            px, py = fx * x * rz + cx, fy * y * rz + cy
            # A bound of the extents by the largest scale and the steepest ray spares most of what is out of sight.
            largest_scale = max(scales[i, 0], scales[i, 1], scales[i, 2]) * rz
            bound_x = MAX_EXTENT_SIGMA * math.sqrt(largest_scale * largest_scale * steep_x + eps2d) + one
            bound_y = MAX_EXTENT_SIGMA * math.sqrt(largest_scale * largest_scale * steep_y + eps2d) + one
            if not (px + bound_x > 0.0 and px - bound_x < width and py + bound_y > 0.0 and py - bound_y < height):
                continue
            qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
            norm = one / math.sqrt(max(qw * qw + qx * qx + qy * qy + qz * qz, np.float32(1e-24)))
            qw, qx, qy, qz = qw * norm, qx * norm, qy * norm, qz * norm
            tx = z * min(lim_x_hi, max(lim_x_lo, x * rz))
            ty = z * min(lim_y_hi, max(lim_y_lo, y * rz))
            # Rows of J W: the two image-plane directions pulled back into the world frame.
            jx, jxz = fx * rz, -fx * tx * rz * rz
            jy, jyz = fy * rz, -fy * ty * rz * rz
            u0 = jx * w2c[0, 0] + jxz * w2c[2, 0]
            u1 = jx * w2c[0, 1] + jxz * w2c[2, 1]
            u2 = jx * w2c[0, 2] + jxz * w2c[2, 2]
            v0 = jy * w2c[1, 0] + jyz * w2c[2, 0]
            v1 = jy * w2c[1, 1] + jyz * w2c[2, 1]
            v2 = jy * w2c[1, 2] + jyz * w2c[2, 2]
            # (J W R S)(J W R S)^T, one column of R at a time.
            r00, r10, r20 = (
                one - two * (qy * qy + qz * qz),
                two * (qx * qy + qw * qz),
                two * (qx * qz - qw * qy),
            )
            r01, r11, r21 = (
                two * (qx * qy - qw * qz),
                one - two * (qx * qx + qz * qz),
                two * (qy * qz + qw * qx),
            )
            r02, r12, r22 = (
                two * (qx * qz + qw * qy),
                two * (qy * qz - qw * qx),
                one - two * (qx * qx + qy * qy),
            )
            p0 = (u0 * r00 + u1 * r10 + u2 * r20) * scales[i, 0]
            p1 = (u0 * r01 + u1 * r11 + u2 * r21) * scales[i, 1]
            p2 = (u0 * r02 + u1 * r12 + u2 * r22) * scales[i, 2]
            s0 = (v0 * r00 + v1 * r10 + v2 * r20) * scales[i, 0]
            s1 = (v0 * r01 + v1 * r11 + v2 * r21) * scales[i, 1]
            s2 = (v0 * r02 + v1 * r12 + v2 * r22) * scales[i, 2]
            cov_xx = p0 * p0 + p1 * p1 + p2 * p2 + eps2d
            cov_yy = s0 * s0 + s1 * s1 + s2 * s2 + eps2d
            cov_xy = p0 * s0 + p1 * s1 + p2 * s2
            det = cov_xx * cov_yy - cov_xy * cov_xy
            if not (det > np.float32(0.0) and math.isfinite(det)):
                continue
            extent = min(MAX_EXTENT_SIGMA, math.sqrt(two * math.log(opacity / MIN_ALPHA)))
            mean = half * (cov_xx + cov_yy)
            largest = mean + math.sqrt(max(np.float32(0.01), mean * mean - det))
            radius = extent * math.sqrt(largest)
            # Beyond these no pixel centre reaches 1/255, so rounding them up as gsplat does would change nothing.
            rx = min(extent * math.sqrt(cov_xx), radius) + EXTENT_MARGIN
            ry = min(extent * math.sqrt(cov_yy), radius) + EXTENT_MARGIN
            if not (px + rx > 0.0 and px - rx < width and py + ry > 0.0 and py - ry < height):
                continue
            dx, dy, dz = mx - eye_x, my - eye_y, mz - eye_z
            inverse = one / math.sqrt(max(dx * dx + dy * dy + dz * dz, np.float32(1e-24)))
            _sh_basis(dx * inverse, dy * inverse, dz * inverse, num_coefficients, basis)
            red = green = blue = half
            for k in range(num_coefficients):
                red += basis[k] * sh[i, k, 0]
                green += basis[k] * sh[i, k, 1]
                blue += basis[k] * sh[i, k, 2]
            splats[i, 0], splats[i, 1] = px, py
            splats[i, 2], splats[i, 3], splats[i, 4] = cov_yy / det, -cov_xy / det, cov_xx / det
            splats[i, 5] = opacity
            splats[i, 6], splats[i, 7] = max(red, np.float32(0.0)), max(green, np.float32(0.0))
            splats[i, 8], splats[i, 9] = max(blue, np.float32(0.0)), z
            splats[i, 10], splats[i, 11] = rx, ry
            keys[i] = np.float32(z).view(np.uint32)


@jit()
def depth_order(keys):
    """Indices of the visible Gaussians, near to far, ties by index: an LSD radix sort in three passes of 11 bits."""
    n = keys.shape[0]
    visible = 0
    histogram = np.zeros((3, 2048), np.int64)
    for i in range(n):
        key = keys[i]
        if key != CULLED:
            visible += 1
            histogram[0, key & np.uint32(2047)] += 1
            histogram[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
            histogram[2, key >> np.uint32(22)] += 1
    order, other = np.empty(visible, np.int32), np.empty(visible, np.int32)
    j = 0
    for i in range(n):
        order[j] = i
        if keys[i] != CULLED:
            j += 1
            if j == visible:
                break
    for level in range(3):
        total = 0
        for b in range(2048):
            count = histogram[level, b]
            histogram[level, b] = total
            total += count
        shift = np.uint32(11 * level)
        for j in range(visible):
            i = order[j]
            digit = (keys[i] >> shift) & np.uint32(2047)
            other[histogram[level, digit]] = i
            histogram[level, digit] += 1
        order, other = other, order
    return order


@jit(inline="always")
def _tile_span(center, extent, num_tiles):
    half = np.float32(0.5)
    lo = math.floor(math.ceil(center - extent - half) / TILE)
    hi = math.floor(math.floor(center + extent - half) / TILE) + 1
    return min(max(lo, 0), num_tiles), min(max(hi, 0), num_tiles)


@jit(parallel=True)
def gather(splats, order):
    """The visible rows in depth order, so that later passes read memory forwards."""
    out = np.empty((order.shape[0], SPLAT_WIDTH), np.float32)
    for j in numba.prange(order.shape[0]):
        for c in range(SPLAT_WIDTH):
            out[j, c] = splats[order[j], c]
    return out


@jit(parallel=True)
def bin_into_tiles(ordered, tiles_x, tiles_y, bands):
    """Lists of splats per tile, near to far: (`starts` [tiles + 1], `members`).

    Bands of tile rows are filled in parallel; each scans all splats in order, so lists do not depend on their number.
    """
    num = ordered.shape[0]
    counts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    spans = np.empty((num, 4), np.int16)
    for j in numba.prange(num):
        spans[j, 0], spans[j, 1] = _tile_span(ordered[j, 0], ordered[j, 10], tiles_x)
        spans[j, 2], spans[j, 3] = _tile_span(ordered[j, 1], ordered[j, 11], tiles_y)
    for band in numba.prange(bands):
        first, last = band * tiles_y // bands, (band + 1) * tiles_y // bands
        for j in range(num):
            for ty in range(max(first, spans[j, 2]), min(last, spans[j, 3])):
                for tx in range(spans[j, 0], spans[j, 1]):
                    counts[ty * tiles_x + tx + 1] += 1
    starts = np.cumsum(counts)
    cursors = starts[:-1].copy()
    members = np.empty(starts[-1], np.int32)
    for band in numba.prange(bands):
        first, last = band * tiles_y // bands, (band + 1) * tiles_y // bands
        for j in range(num):
            for ty in range(max(first, spans[j, 2]), min(last, spans[j, 3])):
                for tx in range(spans[j, 0], spans[j, 1]):
                    tile = ty * tiles_x + tx
                    members[cursors[tile]] = j
                    cursors[tile] += 1
    return starts, members


@jit(fastmath=True)
def _composite_lanes(buffer, base, dx0, row_constant, row_slope, half_a, opacity, red, green, blue, depth):
    """One splat over 8 pixels of one tile row, without branches so that it becomes vector instructions."""
    one = np.float32(1.0)
    zero = np.float32(0.0)
    for k in range(np.uint64(LANES)):
        dx = dx0 - np.float32(k)
        sigma = (half_a * dx + row_slope) * dx + row_constant
        # exp(-s) as the 8th power of a polynomial of s/8; s <= 5.55 wherever alpha >= 1/255. Error < 2e-6.
        r = min(max(sigma, zero), np.float32(6.0)) * np.float32(-0.125)
        e = np.float32(1 / 720) + r * np.float32(1 / 5040)
        e = np.float32(1 / 120) + r * e
        e = np.float32(1 / 24) + r * e
        e = np.float32(1 / 6) + r * e
        e = np.float32(0.5) + r * e
        e = one + r * (one + r * e)
        e *= e
        e *= e
        e *= e
        alpha = min(MAX_ALPHA, opacity * e)
        drawn = (alpha >= MIN_ALPHA) & (sigma >= zero)
        at = base + k
        transmittance = buffer[at]
        remaining = transmittance * (one - alpha)
        enough = remaining > MIN_TRANSMITTANCE
        weight = alpha * transmittance if (drawn & enough) else zero
        # Chosen by value, not by branch: a store under a mask cannot be forwarded to the next splat's load.
        buffer[at] = -abs(transmittance) if (drawn & (not enough)) else transmittance - weight
        buffer[at + np.uint64(16)] += weight * red
        buffer[at + np.uint64(32)] += weight * green
        buffer[at + np.uint64(48)] += weight * blue
        buffer[at + np.uint64(64)] += weight * depth


@jit(fastmath=True)
def _mark_dead(buffer, dead):
    """Mark the runs of pixels that nothing further can reach, and count the others."""
    alive = 0
    for group in range(TILE * GROUPS):
        base = np.uint64(group // GROUPS * TILE * CHANNELS + group % GROUPS * LANES)
        most = np.float32(-1.0)
        for k in range(np.uint64(LANES)):
            most = max(most, buffer[base + k])
        dead[group] = most < np.float32(0.0)
        alive += int(most >= np.float32(0.0))
    return alive


@jit(fastmath=True)
def _composite_tile(ordered, members, left, top, buffer, dead):
    for y in range(TILE):
        for x in range(TILE):
            buffer[y * TILE * CHANNELS + x] = np.float32(1.0)
    for m in range(members.shape[0]):
        splat = ordered[members[m]]
        px, py, rx, ry = splat[0], splat[1], splat[10], splat[11]
        half_a, b, half_c = np.float32(0.5) * splat[2], splat[3], np.float32(0.5) * splat[4]
        dx0 = px - np.float32(left) - np.float32(0.5)
        # Rows and columns whose pixel centres (at +0.5) lie within the extents.
        half = np.float32(0.5)
        first = max(0, math.ceil(py - ry - half) - top)
        last = min(TILE, math.floor(py + ry - half) + 1 - top)
        start = max(0, math.ceil(px - rx - half) - left) // LANES * LANES
        stop = min(TILE, math.floor(px + rx - half) + 1 - left)
        for y in range(first, last):
            dy = py - np.float32(top + y) - np.float32(0.5)
            for x in range(start, stop, LANES):
                if dead[y * GROUPS + x // LANES]:
                    continue
                _composite_lanes(
                    buffer, np.uint64(y * TILE * CHANNELS + x), dx0 - np.float32(x), half_c * dy * dy, b * dy, half_a,
                    splat[5], splat[6], splat[7], splat[8], splat[9],
                )  # fmt: skip
        if (m & 15) == 15 and _mark_dead(buffer, dead) == 0:
            break


@jit(parallel=True, fastmath=True)
def composite(ordered, starts, members, tiles_x, tiles_y, background, color, depth, alpha):
    """Front-to-back compositing of each tile's list into `color` [h w 3], `depth` (expected, 0 if empty), `alpha`."""
    height, width = depth.shape
    for tile in numba.prange(tiles_x * tiles_y):
        buffer = np.zeros(TILE * TILE * CHANNELS, np.float32)
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        dead = np.zeros(TILE * GROUPS, np.bool_)
        _composite_tile(ordered, members[starts[tile] : starts[tile + 1]], left, top, buffer, dead)
        for y in range(min(TILE, height - top)):
            for x in range(min(TILE, width - left)):
                base = y * TILE * CHANNELS + x
                remaining = abs(buffer[base])
                covered = np.float32(1.0) - remaining
                for c in range(3):
                    color[top + y, left + x, c] = buffer[base + (1 + c) * TILE] + remaining * background[c]
                depth[top + y, left + x] = buffer[base + 4 * TILE] / max(covered, np.float32(1e-10))
                alpha[top + y, left + x] = covered
