"""The colour of what rays hit: texture, one light with shadows, light from sky and floor, haze, sky and tone curve.

Albedo is stored in sRGB and squared into light (a gamma of 2, close enough to sRGB for albedo and far cheaper); the
result goes through 1 - exp(-x) and a square root back to sRGB. Legend: b scenes, r rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.procedural.atlas import sample
from lyra_core.procedural.intersect import FAR_M, Hits
from lyra_core.procedural.primitives import ground_height
from lyra_core.procedural.ray_cast import Casting, blocked
from lyra_core.procedural.scene_batch import SceneBatch
from lyra_core.procedural.textures import KIND_INDEX

HIGHLIGHT_POWER = 36.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HitPoints:
    """What shading needs to know of each hit.

    Attributes:
        point: world frame, metres.
        normal: world frame, unit, towards the ray's origin.
        local: point along the shape's own axes, from its centre, metres.
        local_normal: unit, own axes.
        is_leafy: on a perforated ellipsoid.
        is_ground: on the ground.
    """

    point: Float[Tensor, "b r 3"]
    normal: Float[Tensor, "b r 3"]
    local: Float[Tensor, "b r 3"]
    local_normal: Float[Tensor, "b r 3"]
    is_leafy: Tensor
    is_ground: Tensor


def _gather(table: Tensor, index: Tensor) -> Tensor:
    """Rows of [b n c] (or entries of [b n]) for indices [b r]."""
    scenes = torch.arange(table.shape[0], device=table.device)[:, None]
    return table[scenes, index]


def shape_tables(scenes: SceneBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre, half, heading and porosity of every shape and the ground, in the order of shape indices."""
    b = len(scenes)
    center = scenes.boxes.center
    upright = center.new_tensor([1.0, 0.0]).expand(b, 1, 2)
    centers = torch.cat([center, scenes.ellipsoids.center, scenes.frusta.center, center.new_zeros(b, 1, 3)], 1)
    halves = torch.cat([scenes.boxes.half, scenes.ellipsoids.half, scenes.frusta.half, center.new_ones(b, 1, 3)], 1)
    frusta = scenes.frusta.center.shape[1]
    headings = torch.cat([scenes.boxes.heading, scenes.ellipsoids.heading, upright.expand(b, frusta + 1, 2)], 1)
    porosity = torch.cat(
        [center.new_zeros(b, center.shape[1]), scenes.ellipsoids.porosity, center.new_zeros(b, frusta + 1)], 1
    )
    return centers, halves, headings, porosity


def locate(scenes: SceneBatch, origin: Tensor, direction: Tensor, hits: Hits) -> HitPoints:
    """Points and normals of hits; misses get harmless values."""
    centers, halves, headings, porosity = shape_tables(scenes)
    boxes = scenes.boxes.center.shape[1]
    round_end = boxes + scenes.ellipsoids.center.shape[1]
    index = hits.shape
    is_ground = index == centers.shape[1] - 1
    center, half, heading = _gather(centers, index), _gather(halves, index), _gather(headings, index)
    t = torch.where(torch.isfinite(hits.t), hits.t, 1.0)
    point = origin + t[..., None] * direction
    cos, sin = heading[..., 0], heading[..., 1]
    delta = point - center
    x, y = cos * delta[..., 0] + sin * delta[..., 2], delta[..., 1]
    z = cos * delta[..., 2] - sin * delta[..., 0]
    local = torch.stack([x, y, z], -1)

    ratio = local / half
    axes = torch.arange(3, device=local.device)
    face = (ratio.abs().argmax(-1, keepdim=True) == axes) * ratio.sign()
    hull = ratio / half
    bottom, tall, top = half.unbind(-1)
    taper = (top - bottom) / tall
    radius = torch.hypot(x, z).clamp(min=1e-6)
    side = torch.stack([x / radius, taper, z / radius], -1)
    cap = (y > -1e-3 * tall) | (y < -(1 - 1e-3) * tall)
    upward = torch.where(y < -0.5 * tall, -1.0, 1.0)[..., None] * local.new_tensor([0.0, 1.0, 0.0])
    frustum = torch.where(cap[..., None], upward, side)
    own = torch.where((index < boxes)[..., None], face, torch.where((index < round_end)[..., None], hull, frustum))
    own = torch.where(is_ground[..., None], _ground_normal(scenes, point), own)
    own = own / own.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    normal = torch.stack(
        [cos * own[..., 0] - sin * own[..., 2], own[..., 1], sin * own[..., 0] + cos * own[..., 2]], -1
    )
    towards = torch.where(((normal * direction).sum(-1) > 0)[..., None], -normal, normal)
    return HitPoints(
        point=point,
        normal=towards,
        local=local,
        local_normal=own,
        is_leafy=_gather(porosity, index) > 0,
        is_ground=is_ground,
    )


def _ground_normal(scenes: SceneBatch, point: Tensor) -> Tensor:
    if scenes.is_flat:
        return torch.zeros_like(point) - point.new_tensor([0.0, 1.0, 0.0])
    x, z, step = point[..., 0], point[..., 2], 0.02
    here = ground_height(scenes.ground, x, z)
    along_x = (ground_height(scenes.ground, x + step, z) - here) / step
    along_z = (ground_height(scenes.ground, x, z + step) - here) / step
    return torch.stack([-along_x, -torch.ones_like(x), -along_z], -1)


def albedo(scenes: SceneBatch, hits: Hits, at: HitPoints, width_m: Tensor) -> Tensor:
    """Linear albedo [b r 3] of hits.

    Args:
        scenes: of b scenes.
        hits: which shapes.
        at: where.
        width_m: width of a sample across the ray at each hit, metres. [b r]
    """
    surfaces, index = scenes.surfaces, hits.shape
    scale, offset = _gather(surfaces.uv_scale, index), _gather(surfaces.uv_offset, index)
    axis = at.local_normal.abs().argmax(-1)
    repeats = at.local * scale + offset
    u = torch.where(axis == 0, repeats[..., 2], repeats[..., 0])
    v = torch.where(axis == 1, repeats[..., 2], repeats[..., 1])
    u_scale = torch.where(axis == 0, scale[..., 2], scale[..., 0])
    v_scale = torch.where(axis == 1, scale[..., 2], scale[..., 1])
    footprint = width_m * u_scale.abs().maximum(v_scale.abs())
    texture = _gather(scenes.texture, index)
    uv = torch.stack([u, v], -1)
    color = sample(scenes.atlas, texture, uv, footprint)

    cloud = scenes.atlas.first[KIND_INDEX["cloud"]] + texture % scenes.atlas.count[KIND_INDEX["cloud"]]
    broad = 0.13 + 0.1 / (0.3 + scale.amax(-1))
    where = torch.stack([at.point[..., 0] + 0.7 * at.point[..., 1], at.point[..., 2] - 0.6 * at.point[..., 1]], -1)
    patch = sample(scenes.atlas, cloud, where * broad[..., None], width_m * broad)
    if not scenes.is_flat:
        steep = sample(scenes.atlas, scenes.slope_texture[:, None].expand_as(texture), uv * 0.37, footprint * 0.37)
        height = (-at.point[..., 1] / 30.0).clamp(0, 1)
        weight = 3.0 * (1 + at.normal[..., 1]) + 1.2 * height + 0.7 * (patch[..., 0] - 0.5)
        weight = ((weight - 0.3) / 0.35).clamp(0, 1) * at.is_ground
        color = color + (steep - color) * weight[..., None]
    grime = _gather(surfaces.grime, index)[..., None]
    return color * color * _gather(surfaces.tint, index) * (1 + grime * (patch[..., :1] - 0.6))


@dataclass(frozen=True, slots=True, kw_only=True)
class LightRays:
    """Rays from hits to the light.

    Attributes:
        start: a little off the surface, world frame, metres.
        towards: unit.
        reach: metres to the light, or as far as shapes are drawn.
        strength: colour of the light that would arrive.
    """

    start: Float[Tensor, "b r 3"]
    towards: Float[Tensor, "b r 3"]
    reach: Float[Tensor, "b r"]
    strength: Float[Tensor, "b r 3"]


def aim(scenes: SceneBatch, origin: Tensor, direction: Tensor, hits: Hits) -> tuple[HitPoints, LightRays]:
    """Where rays hit, and the rays from there to the light."""
    at = locate(scenes, origin, direction, hits)
    light = scenes.light
    is_lamp = light.position[:, None, 3:]
    offset = light.position[:, None, :3] - is_lamp * at.point
    distance = offset.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    fall = 1 / (1 + 3 * (distance / light.reach_m[:, None, None]) ** 2)
    rays = LightRays(
        start=at.point + at.normal * (2e-3 * (1 + distance.clamp(max=20.0) * 0.2)),
        towards=(offset / distance).expand_as(at.point).contiguous(),
        reach=torch.where(is_lamp > 0, distance * 0.98, FAR_M).expand_as(at.point)[..., 0].contiguous(),
        strength=torch.where(is_lamp > 0, fall, 1.0) * light.color[:, None].expand_as(at.point),
    )
    return at, rays


def light_up(
    scenes: SceneBatch, at: HitPoints, rays: LightRays, shadow: Tensor, direction: Tensor, hits: Hits
) -> tuple[Tensor, Tensor]:
    """Irradiance [b r 3] on hits, and the highlight [b r 3] the light leaves on glossy ones."""
    light = scenes.light
    leafy = at.is_leafy[..., None]
    lambert = (at.normal * rays.towards).sum(-1, keepdim=True)
    lambert = torch.where(leafy, 0.3 + 0.5 * lambert, lambert).clamp(min=0)
    strength = rays.strength * (1 - shadow[..., None] * torch.where(leafy, 0.6, 1.0))
    up = 0.5 - 0.5 * at.normal[..., 1:2]
    ambient = light.below[:, None] + (light.above - light.below)[:, None] * up
    view = direction / direction.norm(dim=-1, keepdim=True)
    half = rays.towards - view
    half = half / half.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    shine = (at.normal * half).sum(-1, keepdim=True).clamp(min=0) ** HIGHLIGHT_POWER
    gloss = _gather(scenes.surfaces.gloss, hits.shape)[..., None]
    return ambient + strength * lambert, strength * shine * gloss * (lambert > 0)


def sky_color(scenes: SceneBatch, direction: Tensor) -> Tensor:
    """Linear colour [b r 3] of the sky along rays."""
    light = scenes.light
    view = direction / direction.norm(dim=-1, keepdim=True)
    up = (-view[..., 1:2]).clamp(min=0)
    color = light.haze[:, None] + (light.zenith - light.haze)[:, None] * up**0.5
    spread = 0.32 / (up + 0.16)
    where = torch.stack([view[..., 0], view[..., 2]], -1) * spread
    count = scenes.atlas.count[KIND_INDEX["cloud"]]
    cloud = scenes.atlas.first[KIND_INDEX["cloud"]] + (light.cloud_variant * count).to(count.dtype)
    index = cloud[:, None].expand(view.shape[:2])
    density = sample(scenes.atlas, index, where, 0.003 * spread[..., 0])[..., :1]
    cover = light.cloud[:, None, None]
    veil = ((density - 1 + cover) / 0.45).clamp(0, 1) * (up / 0.12).clamp(max=1) * (cover > 0)
    bright = light.above[:, None] * 0.6 + light.color[:, None] * 0.35
    color = color + (bright - color) * veil * 0.85
    # a lamp's position is no unit vector: unbounded, the powers overflow, and 0 times infinity is no number
    toward_sun = (view * light.position[:, None, :3]).sum(-1, keepdim=True).clamp(0, 1)
    glow = (0.25 * toward_sun**8 + 6.0 * toward_sun**900) * (1 - light.position[:, None, 3:])
    return color + glow * light.color[:, None] * (1 - 0.7 * veil)


def colorize(
    scenes: SceneBatch,
    direction: Tensor,
    hits: Hits,
    at: HitPoints,
    rays: LightRays,
    shadow: Tensor,
    pixel: Tensor,
) -> Tensor:
    """sRGB colour [b r 3] of hits and of the sky, once it is known what lies in shadow."""
    facing = (at.normal * direction).sum(-1).abs() / direction.norm(dim=-1)
    distance = torch.where(torch.isfinite(hits.t), hits.t, FAR_M) * direction.norm(dim=-1)
    width = distance * pixel[:, None] / facing.clamp(min=0.04).sqrt()
    surface = albedo(scenes, hits, at, width)
    irradiance, highlight = light_up(scenes, at, rays, shadow, direction, hits)
    emission = _gather(scenes.surfaces.emission, hits.shape)[..., None]
    color = surface * (irradiance + emission) + highlight
    clear = torch.exp(-distance * scenes.light.haze_per_m[:, None])
    border = ((distance - 0.6 * FAR_M) / (0.4 * FAR_M)).clamp(0, 1)
    clear = (clear * (1 - border * border * (3 - 2 * border)))[..., None]
    color = color * clear + scenes.light.haze[:, None] * (1 - clear)
    color = torch.where(torch.isfinite(hits.t)[..., None], color, sky_color(scenes, direction))
    return torch.sqrt(1 - torch.exp(-color.clamp(min=0) * scenes.light.exposure[:, None, None]))


def shade(
    scenes: SceneBatch,
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    hits: Hits,
    pixel: Float[Tensor, " b"],
    *,
    shadows: bool,
    casting: Casting = "auto",
) -> Float[Tensor, "b r 3"]:
    """sRGB colour in [0, 1] seen along rays.

    Args:
        scenes: of b scenes.
        origin: world frame, metres.
        direction: world frame, of length about 1.
        hits: of these rays.
        pixel: width of a sample at distance 1.
        shadows: cast a second ray to the light.
        casting: how.
    """
    at, rays = aim(scenes, origin, direction, hits)
    shadow = blocked(scenes, rays.start, rays.towards, rays.reach, casting) if shadows else torch.zeros_like(rays.reach)
    return colorize(scenes, direction, hits, at, rays, shadow, pixel)
