"""Draws procedural worlds on a GPU: one kernel follows each pixel's rays from the camera through shade to colour.

The same arithmetic as `intersect` and `shade`, which are the plain reference and are compared with it. A ray meets only
the shapes its scene has (batches are padded), nothing is stored between the steps, and the kernel compiles in seconds
whatever the sizes: training starts at once.

Needs Triton, which comes with torch on CUDA machines.
"""
# mypy: disable-error-code="no-untyped-def,import-not-found,import-untyped"
# ruff: noqa: ANN001, PLR0915

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lyra_core.geometry.splat_gpu_kernels import kernel
from lyra_core.procedural.hit_kernels import FAR, SHAPE, first_hit, nearest_shape, terrain_height
from lyra_core.procedural.primitives import PARKED_M
from lyra_core.procedural.scene_batch import SceneBatch
from lyra_core.procedural.shade import shape_tables
from lyra_core.procedural.textures import KIND_INDEX

SURFACE_WIDTH, CAMERA_WIDTH, SCENE_WIDTH = 13, 16, 62
BLOCK_PIXELS = 128


SURFACE = tl.constexpr(SURFACE_WIDTH)


@kernel
def _bilinear(texels, texture, u, v, level, mirror, size, stride):
    side = size >> level
    start = texture * stride + (4 * size * size - 4 * side * side) // 3
    last = side - 1
    column, row = u * side - 0.5, v * side - 0.5
    left, top = tl.floor(column), tl.floor(row)
    fx, fy = column - left, row - top
    x0, y0 = left.to(tl.int32), top.to(tl.int32)
    x1 = tl.where(mirror, tl.minimum(x0 + 1, last), (x0 + 1) & last)
    y1 = tl.where(mirror, tl.minimum(y0 + 1, last), (y0 + 1) & last)
    x0 = tl.where(mirror, tl.maximum(x0, 0), x0 & last)
    y0 = tl.where(mirror, tl.maximum(y0, 0), y0 & last)
    a, b = tl.load(texels + start + y0 * side + x0), tl.load(texels + start + y0 * side + x1)
    c, d = tl.load(texels + start + y1 * side + x0), tl.load(texels + start + y1 * side + x1)
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    red = (a & 255) * wa + (b & 255) * wb + (c & 255) * wc + (d & 255) * wd
    green = (a >> 8 & 255) * wa + (b >> 8 & 255) * wb + (c >> 8 & 255) * wc + (d >> 8 & 255) * wd
    blue = (a >> 16 & 255) * wa + (b >> 16 & 255) * wb + (c >> 16 & 255) * wc + (d >> 16 & 255) * wd
    return red / 255, green / 255, blue / 255


@kernel
def _sample(texels, texture, u, v, footprint, size, levels, stride, picture):
    lod = tl.log2(tl.maximum(footprint, 1e-9) * size)
    lod = tl.minimum(tl.maximum(lod, 0.0), levels - 1.001)
    level = tl.floor(lod)
    fine = level.to(tl.int32)
    mirror = texture >= picture
    u = tl.where(mirror, 1 - tl.abs(1 - (u - 2 * tl.floor(u / 2))), u - tl.floor(u))
    v = tl.where(mirror, 1 - tl.abs(1 - (v - 2 * tl.floor(v / 2))), v - tl.floor(v))
    w = lod - level
    r0, g0, b0 = _bilinear(texels, texture, u, v, fine, mirror, size, stride)
    r1, g1, b1 = _bilinear(texels, texture, u, v, fine + 1, mirror, size, stride)
    return r0 + w * (r1 - r0), g0 + w * (g1 - g0), b0 + w * (b1 - b0)


@kernel
def _sky(dx, dy, dz, scene, texels, size, levels, stride, picture):
    length = tl.sqrt(dx * dx + dy * dy + dz * dz)
    vx, vy, vz = dx / length, dy / length, dz / length
    up = tl.maximum(-vy, 0.0)
    spread = 0.32 / (up + 0.16)
    texture = tl.full(dx.shape, 0, tl.int32) + tl.load(scene + 22).to(tl.int32)
    density, _, _ = _sample(texels, texture, vx * spread, vz * spread, 0.003 * spread, size, levels, stride, picture)
    cover, lamp = tl.load(scene + 21), tl.load(scene + 3)
    veil = tl.minimum(tl.maximum((density - 1 + cover) / 0.45, 0.0), 1.0) * tl.minimum(up / 0.12, 1.0)
    veil = tl.where(cover > 0, veil, 0.0)
    toward = vx * tl.load(scene) + vy * tl.load(scene + 1) + vz * tl.load(scene + 2)
    toward = tl.minimum(tl.maximum(toward, 1e-20), 1.0)
    halo = toward * toward
    halo = halo * halo
    glow = (0.25 * halo * halo + 6.0 * tl.exp2(900.0 * tl.log2(toward))) * (1 - lamp) * (1 - 0.7 * veil)
    root = tl.sqrt(up)
    return root, veil, glow


@kernel
def _sky_channel(root, veil, glow, scene, channel: tl.constexpr):
    haze, zenith = tl.load(scene + 14 + channel), tl.load(scene + 18 + channel)
    sun = tl.load(scene + 4 + channel)
    color = haze + (zenith - haze) * root
    bright = tl.load(scene + 8 + channel) * 0.6 + sun * 0.35
    return color + (bright - color) * veil * 0.85 + glow * sun


@kernel
def _normal(shapes, scene, which, px, py, pz, first_e, first_f, ground):
    """Point along the shape's own axes, own normal, and the heading of each hit."""
    p = shapes + which * SHAPE
    cos, sin = tl.load(p + 6), tl.load(p + 7)
    hx, hy, hz = tl.load(p + 3), tl.load(p + 4), tl.load(p + 5)
    ax, y, az = px - tl.load(p), py - tl.load(p + 1), pz - tl.load(p + 2)
    x, z = cos * ax + sin * az, cos * az - sin * ax
    rx, ry, rz = x / hx, y / hy, z / hz
    on_x = (tl.abs(rx) >= tl.abs(ry)) & (tl.abs(rx) >= tl.abs(rz))
    on_y = (tl.abs(ry) >= tl.abs(rz)) & (on_x == 0)
    on_z = (on_x == 0) & (on_y == 0)
    nx = tl.where(on_x, tl.where(rx > 0, 1.0, -1.0), 0.0)
    ny = tl.where(on_y, tl.where(ry > 0, 1.0, -1.0), 0.0)
    nz = tl.where(on_z, tl.where(rz > 0, 1.0, -1.0), 0.0)
    hull = (which >= first_e) & (which < first_f)
    nx, ny, nz = tl.where(hull, rx / hx, nx), tl.where(hull, ry / hy, ny), tl.where(hull, rz / hz, nz)
    cone = (which >= first_f) & (which < ground)
    radius = tl.maximum(tl.sqrt(x * x + z * z), 1e-6)
    cap = (y > -1e-3 * hy) | (y < -(1 - 1e-3) * hy)
    cap_y = tl.where(y < -0.5 * hy, -1.0, 1.0)
    nx = tl.where(cone, tl.where(cap, 0.0, x / radius), nx)
    ny = tl.where(cone, tl.where(cap, cap_y, (hz - hx) / hy), ny)
    nz = tl.where(cone, tl.where(cap, 0.0, z / radius), nz)
    is_ground = which == ground
    gx = tl.zeros(px.shape, tl.float32)
    gz = gx
    if tl.load(scene + 26) <= 0:
        here = terrain_height(px, pz, scene)
        gx = -(terrain_height(px + 0.02, pz, scene) - here) / 0.02
        gz = -(terrain_height(px, pz + 0.02, scene) - here) / 0.02
    nx, ny, nz = tl.where(is_ground, gx, nx), tl.where(is_ground, -1.0, ny), tl.where(is_ground, gz, nz)
    length = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
    return x, y, z, nx / length, ny / length, nz / length, cos, sin


@kernel
def _color(
    ox, oy, oz, dx, dy, dz, pixel, shapes, surfaces, scene, texels,
    first_e, first_f, ground, size, levels, stride, picture, cloud, clouds, SHADOWS: tl.constexpr,
):  # fmt: skip
    """sRGB colour of rays."""
    t, which = first_hit(ox, oy, oz, dx, dy, dz, shapes, scene, first_e, first_f, ground)
    hit = t < float("inf")
    length = tl.sqrt(dx * dx + dy * dy + dz * dz)
    safe_t = tl.where(hit, t, 1.0)
    px, py, pz = ox + safe_t * dx, oy + safe_t * dy, oz + safe_t * dz
    x, y, z, ux, uy, uz, cos, sin = _normal(shapes, scene, which, px, py, pz, first_e, first_f, ground)
    nx, ny, nz = cos * ux - sin * uz, uy, sin * ux + cos * uz
    facing = nx * dx + ny * dy + nz * dz
    flip = tl.where(facing > 0, -1.0, 1.0)
    nx, ny, nz = nx * flip, ny * flip, nz * flip
    # the way to the light
    lamp = tl.load(scene + 3)
    lx, ly, lz = tl.load(scene) - lamp * px, tl.load(scene + 1) - lamp * py, tl.load(scene + 2) - lamp * pz
    light_distance = tl.maximum(tl.sqrt(lx * lx + ly * ly + lz * lz), 1e-6)
    lx, ly, lz = lx / light_distance, ly / light_distance, lz / light_distance
    falloff = light_distance / tl.load(scene + 7)
    power = tl.where(lamp > 0, 1 / (1 + 3 * falloff * falloff), 1.0)
    leafy = tl.load(shapes + which * SHAPE + 8) > 0
    if SHADOWS:
        lift = 2e-3 * (1 + tl.minimum(light_distance, 20.0) * 0.2)
        reach = tl.where(lamp > 0, light_distance * 0.98, FAR)
        blocker, _ = nearest_shape(
            px + nx * lift, py + ny * lift, pz + nz * lift, lx, ly, lz, shapes, scene, first_e, first_f, ground
        )
        power = tl.where(blocker < reach, power * tl.where(leafy, 0.4, 0.0), power)
    # albedo
    s = surfaces + which * SURFACE
    sx, sy, sz = tl.load(s), tl.load(s + 1), tl.load(s + 2)
    qx, qy, qz = x * sx + tl.load(s + 3), y * sy + tl.load(s + 4), z * sz + tl.load(s + 5)
    on_x = (tl.abs(ux) >= tl.abs(uy)) & (tl.abs(ux) >= tl.abs(uz))
    on_y = (tl.abs(uy) >= tl.abs(uz)) & (on_x == 0)
    u, v = tl.where(on_x, qz, qx), tl.where(on_y, qz, qy)
    distance = tl.where(hit, t, FAR) * length
    width = distance * pixel / tl.sqrt(tl.maximum(tl.abs(facing) / length, 0.04))
    spread = tl.maximum(tl.abs(tl.where(on_x, sz, sx)), tl.abs(tl.where(on_y, sz, sy)))
    texture = tl.load(s + 12).to(tl.int32)
    red, green, blue = _sample(texels, texture, u, v, width * spread, size, levels, stride, picture)
    broad = 0.13 + 0.1 / (0.3 + tl.maximum(tl.maximum(sx, sy), sz))
    patch, _, _ = _sample(
        texels, cloud + texture % clouds, (px + 0.7 * py) * broad, (pz - 0.6 * py) * broad, width * broad,
        size, levels, stride, picture,
    )  # fmt: skip
    if tl.load(scene + 26) <= 0:
        slope = tl.full(dx.shape, 0, tl.int32) + tl.load(scene + 25).to(tl.int32)
        r1, g1, b1 = _sample(texels, slope, u * 0.37, v * 0.37, width * spread * 0.37, size, levels, stride, picture)
        high = tl.minimum(tl.maximum(-py / 30.0, 0.0), 1.0)
        weight = 3.0 * (1 + ny) + 1.2 * high + 0.7 * (patch - 0.5)
        weight = tl.minimum(tl.maximum((weight - 0.3) / 0.35, 0.0), 1.0)
        weight = tl.where(which == ground, weight, 0.0)
        red, green, blue = red + (r1 - red) * weight, green + (g1 - green) * weight, blue + (b1 - blue) * weight
    grime = 1 + tl.load(s + 11) * (patch - 0.6)
    # light
    lambert = nx * lx + ny * ly + nz * lz
    lambert = tl.maximum(tl.where(leafy, 0.3 + 0.5 * lambert, lambert), 0.0)
    up = 0.5 - 0.5 * ny
    hx, hy, hz = lx - dx / length, ly - dy / length, lz - dz / length
    half = tl.maximum(tl.sqrt(hx * hx + hy * hy + hz * hz), 1e-6)
    shine = tl.maximum((nx * hx + ny * hy + nz * hz) / half, 0.0)
    shine2 = shine * shine
    shine4 = shine2 * shine2
    shine32 = shine4 * shine4
    shine32 = shine32 * shine32
    shine32 = shine32 * shine32
    gloss = tl.where(lambert > 0, shine32 * shine4 * tl.load(s + 9), 0.0)
    emission = tl.load(s + 10)
    clear = tl.exp(-distance * tl.load(scene + 17))
    border = tl.minimum(tl.maximum((distance - 0.6 * FAR) / (0.4 * FAR), 0.0), 1.0)
    clear = clear * (1 - border * border * (3 - 2 * border))
    root, veil, glow = _sky(dx, dy, dz, scene, texels, size, levels, stride, picture)
    red = red * red * tl.load(s + 6) * grime
    green = green * green * tl.load(s + 7) * grime
    blue = blue * blue * tl.load(s + 8) * grime
    return (
        _channel(red, lambert, up, power, gloss, emission, clear, hit, root, veil, glow, scene, 0),
        _channel(green, lambert, up, power, gloss, emission, clear, hit, root, veil, glow, scene, 1),
        _channel(blue, lambert, up, power, gloss, emission, clear, hit, root, veil, glow, scene, 2),
    )


@kernel
def _channel(albedo, lambert, up, power, gloss, emission, clear, hit, root, veil, glow, scene, channel: tl.constexpr):
    strength = power * tl.load(scene + 4 + channel)
    above, below = tl.load(scene + 8 + channel), tl.load(scene + 11 + channel)
    irradiance = below + (above - below) * up + strength * lambert
    color = albedo * (irradiance + emission) + strength * gloss
    color = color * clear + tl.load(scene + 14 + channel) * (1 - clear)
    color = tl.where(hit, color, _sky_channel(root, veil, glow, scene, channel))
    return tl.sqrt(1 - tl.exp(-tl.maximum(color, 0.0) * tl.load(scene + 23)))


@kernel
def _direction(camera, x, y):
    u, v = (x - tl.load(camera + 14)) / tl.load(camera + 12), (y - tl.load(camera + 15)) / tl.load(camera + 13)
    dx = tl.load(camera) * u + tl.load(camera + 1) * v + tl.load(camera + 2)
    dy = tl.load(camera + 3) * u + tl.load(camera + 4) * v + tl.load(camera + 5)
    dz = tl.load(camera + 6) * u + tl.load(camera + 7) * v + tl.load(camera + 8)
    return dx, dy, dz


@kernel
def _render(
    cameras, scenes, all_shapes, all_surfaces, texels, rgb, depth,
    frames_a_scene, num_shapes, first_e, first_f, width, pixels, blocks,
    size, levels, stride, picture, cloud, clouds,
    SAMPLES: tl.constexpr, SHADOWS: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
    CAMERA: tl.constexpr, SCENE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    frame = (program // blocks).to(tl.int64)
    item = frame // frames_a_scene
    camera = cameras + frame * CAMERA
    scene = scenes + item * SCENE
    shapes = all_shapes + item * num_shapes * SHAPE
    surfaces = all_surfaces + item * num_shapes * SURFACE
    index = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = index < pixels
    column, row = (index % width).to(tl.float32), (index // width).to(tl.float32)
    ox, oy, oz = tl.load(camera + 9), tl.load(camera + 10), tl.load(camera + 11)
    pixel = 1 / (tl.load(camera + 12) * SAMPLES)
    ground = num_shapes - 1
    red = tl.zeros((BLOCK,), tl.float32)
    green, blue = red, red
    for sample in range(SAMPLES * SAMPLES):
        dx, dy, dz = _direction(
            camera,
            column + (sample % SAMPLES + 0.5) / SAMPLES,
            row + (sample // SAMPLES + 0.5) / SAMPLES,
        )
        r, g, b = _color(
            ox, oy, oz, dx, dy, dz, pixel, shapes, surfaces, scene, texels,
            first_e, first_f, ground, size, levels, stride, picture, cloud, clouds, SHADOWS,
        )  # fmt: skip
        red, green, blue = red + r, green + g, blue + b
    at = (frame * pixels + index) * 3
    tl.store(rgb + at, red / (SAMPLES * SAMPLES), mask=inside)
    tl.store(rgb + at + 1, green / (SAMPLES * SAMPLES), mask=inside)
    tl.store(rgb + at + 2, blue / (SAMPLES * SAMPLES), mask=inside)
    if DEPTH:
        dx, dy, dz = _direction(camera, column + 0.5, row + 0.5)
        t, _ = first_hit(ox, oy, oz, dx, dy, dz, shapes, scene, first_e, first_f, ground)
        tl.store(depth + frame * pixels + index, t, mask=inside)


def _scene_rows(scenes: SceneBatch) -> Float[Tensor, "b width"]:
    """Light, air, ground and counts of each scene in the order the kernel reads them."""
    light, ground, atlas = scenes.light, scenes.ground, scenes.atlas
    cloud = KIND_INDEX["cloud"]
    variant = (light.cloud_variant * atlas.count[cloud]).floor() + atlas.first[cloud]
    parts = (scenes.boxes, scenes.ellipsoids, scenes.frusta)
    counts = [(part.center[..., 1] < 0.5 * PARKED_M).sum(-1) for part in parts]
    columns = [
        light.position, light.color, light.reach_m, light.above, light.below, light.haze, light.haze_per_m,
        light.zenith, light.cloud, variant, light.exposure, ground.rise, scenes.slope_texture,
        (ground.amplitude == 0).all(-1), *counts, torch.zeros_like(ground.rise), torch.zeros_like(ground.rise),
        torch.stack([ground.amplitude, *ground.wave.unbind(-1), ground.phase, torch.sin(ground.phase)], -1).flatten(1),
    ]  # fmt: skip
    return torch.cat([c.reshape(len(scenes), -1).float() for c in columns], 1).contiguous()


def render(
    scenes: SceneBatch,
    cam_to_world: Float[Tensor, "b t 4 4"],
    intrinsics: Float[Tensor, "b t 3 3"],
    height: int,
    width: int,
    *,
    supersample: int = 2,
    shadows: bool = True,
    with_depth: bool = True,
) -> tuple[Float[Tensor, "b t h w 3"], Float[Tensor, "b t h w"] | None]:
    """sRGB frames in [0, 1] and z-depth of pixel centres (infinite for sky), as worlds.render_frames.

    Args:
        scenes: of b scenes, on a CUDA device.
        cam_to_world: float32, metres.
        intrinsics: pixels of a height x width image, pixel centres at +0.5.
        height: rows.
        width: columns.
        supersample: rays along each side of a pixel for colour.
        shadows: cast shadows.
        with_depth: follow the ray of the pixel's centre, too.
    """
    b, t = cam_to_world.shape[:2]
    device = cam_to_world.device
    atlas, surfaces = scenes.atlas, scenes.surfaces
    *tables, porosity = shape_tables(scenes)
    shapes = torch.cat([*tables, porosity[..., None]], -1).contiguous()
    boxes, hulls = (part.center.shape[1] for part in (scenes.boxes, scenes.ellipsoids))
    looks = [surfaces.uv_scale, surfaces.uv_offset, surfaces.tint]
    looks += [c[..., None] for c in (surfaces.gloss, surfaces.emission, surfaces.grime, scenes.texture.float())]
    corner = intrinsics[..., [0, 1, 0, 1], [0, 1, 2, 2]]
    cameras = torch.cat([cam_to_world[..., :3, :3].flatten(2), cam_to_world[..., :3, 3], corner], -1).contiguous()
    rgb = torch.empty(b, t, height, width, 3, device=device)
    depth = torch.empty(b, t, height, width, device=device) if with_depth else None
    blocks = triton.cdiv(height * width, BLOCK_PIXELS)
    picture, cloud = atlas.ranges[KIND_INDEX["picture"]], atlas.ranges[KIND_INDEX["cloud"]]
    _render[(b * t * blocks,)](
        cameras, _scene_rows(scenes), shapes, torch.cat(looks, -1).contiguous(), atlas.texels, rgb,
        rgb if depth is None else depth,
        t, shapes.shape[1], boxes, boxes + hulls, width, height * width, blocks,
        atlas.size, atlas.levels, atlas.stride, picture[0], *cloud,
        SAMPLES=supersample, SHADOWS=shadows, DEPTH=with_depth, BLOCK=BLOCK_PIXELS,
        CAMERA=CAMERA_WIDTH, SCENE=SCENE_WIDTH, num_warps=4,
    )  # fmt: skip
    return rgb, depth
