"""The compiled loops of the ray caster: bound Gaussians on a cube around the sensor, list them by cell, cast rays.

One row of `splats` [n 26] float32, in the sensor's frame:
0-8   Q by rows: from the sensor's frame to the Gaussian's own axes
9-11  q0 = -Q mean: the sensor's origin in those axes
12-14 1 / standard deviations, blurred by the rays' pitch: they decide how much of the ray is covered
15-17 1 / standard deviations as they are: they decide where along the ray the surface is
18    squared Mahalanobis distance at which opacity falls to 1/255
19    opacity
20-22 colour
23    least distance from the origin at which a ray can meet it
24    greatest such distance
25    unused

Faces of the cube are numbered +z, -z, +x, -x, +y, -y; a face has `cells` x `cells` cells, and cell numbers count faces,
rows, columns. Kernels carry no annotations on purpose, see lyra_core.gaussians.rasterize_kernels.
"""
# mypy: disable-error-code="no-untyped-def, operator"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import math

import numba
import numpy as np

from lyra_core.jit import jit

WIDTH = 26
FACES = 6
MIN_ALPHA = np.float32(1.0 / 255.0)
MAX_ALPHA = np.float32(0.999)
MIN_TRANSMITTANCE = np.float32(1e-4)
HALF = np.float32(0.5)
# From the middle of a face to its corner.
CORNER_RAD = math.acos(1.0 / math.sqrt(3.0))
MARGIN = 1e-4  # of a face's half width, against rounding


@jit(inline="always")
def _on_face(face, x, y, z):
    """Coordinates of a vector in a face's frame: to the right, down, towards the face."""
    if face == 0:
        return x, y, z
    if face == 1:
        return -x, y, -z
    if face == 2:
        return -z, y, x
    if face == 3:
        return z, y, -x
    if face == 4:
        return x, -z, y
    return x, z, -y


@jit(inline="always")
def _interval(m, z, c_mm, c_mz, c_zz):
    """Bounds of m/z over an ellipsoid of covariance c in front of the sensor: where planes through it touch."""
    a = z * z - c_zz
    b = m * z - c_mz
    root = math.sqrt(max(b * b - a * (m * m - c_mm), 0.0))
    return (b - root) / a, (b + root) / a


@jit(inline="always")
def _cells_of(low, high, cells):
    first = math.floor((max(low - MARGIN, -1.0) + 1.0) * 0.5 * cells)
    last = math.floor((min(high + MARGIN, 1.0) + 1.0) * 0.5 * cells)
    return min(max(first, 0), cells), min(last, cells - 1) + 1


@jit()
def cells_of_rays(rays, cells):
    """Number of the cell that each ray passes through, -1 where there is no ray. [n]"""
    found = np.empty(rays.shape[0], np.int64)
    for i in range(rays.shape[0]):
        found[i] = -1
        most = 1e-6
        for face in range(FACES):
            x, y, z = _on_face(face, rays[i, 0], rays[i, 1], rays[i, 2])
            if z > most:
                most = z
                column = min(max(math.floor((x / z + 1.0) * 0.5 * cells), 0), cells - 1)
                row = min(max(math.floor((y / z + 1.0) * 0.5 * cells), 0), cells - 1)
                found[i] = (face * cells + row) * cells + column
    return found


@jit()
def bound_splats(means, covariances, limits, sizes, has_rays, cells):
    """Cells of each face that a Gaussian can show in, as column and row ranges. [n 6 4] int16, empty where none

    `covariances` [n 6]: xx, xy, xz, yy, yz, zz; `limits` [n]: squared Mahalanobis radius; `sizes` [n]: radius of a
    sphere around it; `has_rays` [6].
    """
    spans = np.zeros((means.shape[0], FACES, 4), np.int16)
    for i in range(means.shape[0]):
        x, y, z = float(means[i, 0]), float(means[i, 1]), float(means[i, 2])
        distance = math.sqrt(x * x + y * y + z * z)
        reach = math.pi if sizes[i] >= distance else math.asin(sizes[i] / distance)
        k = float(limits[i])
        c_xx, c_xy, c_xz = k * covariances[i, 0], k * covariances[i, 1], k * covariances[i, 2]
        c_yy, c_yz, c_zz = k * covariances[i, 3], k * covariances[i, 4], k * covariances[i, 5]
        for face in range(FACES):
            if not has_rays[face]:
                continue
            u, v, w = _on_face(face, x, y, z)
            if math.acos(min(max(w / max(distance, 1e-12), -1.0), 1.0)) > CORNER_RAD + reach + MARGIN:
                continue
            # The face's axes in the sensor's frame, by which the covariance turns with it.
            ax, ay, az = _axis(face, 0)
            bx, by, bz = _axis(face, 1)
            nx, ny, nz = _axis(face, 2)
            n0 = c_xx * nx + c_xy * ny + c_xz * nz
            n1 = c_xy * nx + c_yy * ny + c_yz * nz
            n2 = c_xz * nx + c_yz * ny + c_zz * nz
            ww = nx * n0 + ny * n1 + nz * n2
            left, right, top, bottom = -1.0, 1.0, -1.0, 1.0
            if w > 0.0 and w * w > ww * 1.0001:
                a0 = c_xx * ax + c_xy * ay + c_xz * az
                a1 = c_xy * ax + c_yy * ay + c_yz * az
                a2 = c_xz * ax + c_yz * ay + c_zz * az
                b0 = c_xx * bx + c_xy * by + c_xz * bz
                b1 = c_xy * bx + c_yy * by + c_yz * bz
                b2 = c_xz * bx + c_yz * by + c_zz * bz
                left, right = _interval(u, w, ax * a0 + ay * a1 + az * a2, nx * a0 + ny * a1 + nz * a2, ww)
                top, bottom = _interval(v, w, bx * b0 + by * b1 + bz * b2, nx * b0 + ny * b1 + nz * b2, ww)
            elif w < 0.0 and w * w > ww * 1.0001:
                continue
            if right < -1.0 or left > 1.0 or bottom < -1.0 or top > 1.0:
                continue
            spans[i, face, 0], spans[i, face, 1] = _cells_of(left, right, cells)
            spans[i, face, 2], spans[i, face, 3] = _cells_of(top, bottom, cells)
    return spans


@jit(inline="always")
def _axis(face, which):
    """Right, down and outward axis of a face, in the sensor's frame."""
    x = _on_face(face, 1.0, 0.0, 0.0)[which]
    y = _on_face(face, 0.0, 1.0, 0.0)[which]
    z = _on_face(face, 0.0, 0.0, 1.0)[which]
    return x, y, z


@jit()
def list_by_cell(spans, order, ray_starts, cells):
    """Gaussians of each cell that has rays, in `order`: (`starts` [cells of all faces + 1], `members`)."""
    counts = np.zeros(FACES * cells * cells + 1, np.int64)
    for i in order:
        for face in range(FACES):
            for row in range(spans[i, face, 2], spans[i, face, 3]):
                for column in range(spans[i, face, 0], spans[i, face, 1]):
                    cell = (face * cells + row) * cells + column
                    if ray_starts[cell + 1] > ray_starts[cell]:
                        counts[cell + 1] += 1
    starts = np.cumsum(counts)
    cursors = starts[:-1].copy()
    members = np.empty(starts[-1], np.int32)
    for i in order:
        for face in range(FACES):
            for row in range(spans[i, face, 2], spans[i, face, 3]):
                for column in range(spans[i, face, 0], spans[i, face, 1]):
                    cell = (face * cells + row) * cells + column
                    if ray_starts[cell + 1] > ray_starts[cell]:
                        members[cursors[cell]] = i
                        cursors[cell] += 1
    return starts, members


@jit(inline="always")
def _meet(splat, dx, dy, dz):
    """How much of a ray a Gaussian covers, and where along it: (alpha, t); alpha 0 where it does not meet it."""
    qx = splat[0] * dx + splat[1] * dy + splat[2] * dz
    qy = splat[3] * dx + splat[4] * dy + splat[5] * dz
    qz = splat[6] * dx + splat[7] * dy + splat[8] * dz
    ax, ay, az = qx * splat[12], qy * splat[13], qz * splat[14]
    ox, oy, oz = splat[9] * splat[12], splat[10] * splat[13], splat[11] * splat[14]
    # The squared distance of a line from the origin by a cross product: a difference of squares would lose all digits.
    cx, cy, cz = oy * az - oz * ay, oz * ax - ox * az, ox * ay - oy * ax
    square = (cx * cx + cy * cy + cz * cz) / (ax * ax + ay * ay + az * az)
    if square > splat[18]:
        return np.float32(0.0), np.float32(0.0)
    alpha = min(MAX_ALPHA, splat[19] * math.exp(-HALF * square))
    if alpha < MIN_ALPHA:
        return np.float32(0.0), np.float32(0.0)
    ax, ay, az = qx * splat[15], qy * splat[16], qz * splat[17]
    ox, oy, oz = splat[9] * splat[15], splat[10] * splat[16], splat[11] * splat[17]
    t = -(ax * ox + ay * oy + az * oz) / (ax * ax + ay * ay + az * az)
    if t <= np.float32(0.0):
        return np.float32(0.0), np.float32(0.0)
    return alpha, min(max(t, splat[23]), splat[24])


@jit()
def cast_cell(rays, which, splats, members, color, distance, cover, hit):
    """Composite the rays of one cell, each in its own exact order along the ray."""
    ts = np.empty(members.shape[0], np.float32)
    alphas = np.empty(members.shape[0], np.float32)
    ids = np.empty(members.shape[0], np.int32)
    for r in which:
        dx, dy, dz = rays[r, 0], rays[r, 1], rays[r, 2]
        red = green = blue = np.float32(0.0)
        left = np.float32(1.0)
        done = count = 0
        hit[r] = -1
        distance[r] = 0.0
        for m in range(members.shape[0] + 1):
            # Members come by the least distance at which a ray can meet them: nothing later lies before `near`.
            near = splats[members[m], 23] if m < members.shape[0] else np.float32(np.inf)
            while done < count and ts[done] <= near and left >= MIN_TRANSMITTANCE:
                splat = splats[ids[done]]
                weight = alphas[done] * left
                red += weight * splat[20]
                green += weight * splat[21]
                blue += weight * splat[22]
                left -= weight
                if left <= HALF and hit[r] < 0:
                    hit[r] = ids[done]
                    distance[r] = ts[done]
                done += 1
            if m == members.shape[0] or left < MIN_TRANSMITTANCE:
                break
            alpha, t = _meet(splats[members[m]], dx, dy, dz)
            if alpha > np.float32(0.0):
                place = count
                while place > done and ts[place - 1] > t:
                    ts[place], alphas[place], ids[place] = ts[place - 1], alphas[place - 1], ids[place - 1]
                    place -= 1
                ts[place], alphas[place], ids[place] = t, alpha, members[m]
                count += 1
        color[r, 0], color[r, 1], color[r, 2] = red, green, blue
        cover[r] = np.float32(1.0) - left


@jit(parallel=True)
def cast_parallel(rays, ray_starts, ray_order, splats, starts, members, color, distance, cover, hit):
    """All cells, on the threads of numba."""
    for cell in numba.prange(ray_starts.shape[0] - 1):
        which = ray_order[ray_starts[cell] : ray_starts[cell + 1]]
        if which.shape[0] > 0:
            cast_cell(rays, which, splats, members[starts[cell] : starts[cell + 1]], color, distance, cover, hit)


@jit()
def cast_serial(rays, ray_starts, ray_order, splats, starts, members, color, distance, cover, hit):
    """All cells, on the calling thread: a forked process must not start numba's threads."""
    for cell in range(ray_starts.shape[0] - 1):
        which = ray_order[ray_starts[cell] : ray_starts[cell + 1]]
        if which.shape[0] > 0:
            cast_cell(rays, which, splats, members[starts[cell] : starts[cell + 1]], color, distance, cover, hit)
