"""Where rays meet the shapes of a scene: closed forms for shapes, a march for a wavy ground.

Rays have any length of direction: the parameter `t` of a hit counts directions. The renderer gives directions whose
z component in the camera is 1, so that `t` is the z-depth. Legend: b scenes, r rays, k shapes of one sort.

Everything is one broadcast expression reduced over k, which a compiler turns into one kernel that holds no [b r k].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra_core.procedural.primitives import Boxes, Ellipsoids, Frusta, Ground, ground_height

FAR = float("inf")
FAR_M = 280.0
"""Nothing farther away is drawn; the haze hides the border."""
NEAREST = 1e-4
MARCH_STEPS = 40
MARCH_START_M = 0.15
MARCH_GROWTH = (FAR_M / MARCH_START_M) ** (1 / (MARCH_STEPS - 1))
FINE_STEPS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """The nearest hit of each ray.

    Attributes:
        t: ray parameter, infinite for a miss.
        shape: boxes first, then ellipsoids, frusta, and last the ground; the ground's index for a miss.
    """

    t: Float[Tensor, "b r"]
    shape: Int[Tensor, "b r"]


def _turn(heading: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """World x and z into a shape's own axes."""
    cos, sin = heading[..., 0], heading[..., 1]
    return cos * x + sin * z, cos * z - sin * x


def _safe(d: Tensor) -> Tensor:
    return torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)


def hit_boxes(origin: Tensor, direction: Tensor, boxes: Boxes) -> Tensor:
    """Ray parameters [b r k] at which rays enter boxes (slab method); infinite for misses and rays from inside."""
    center, half, heading = boxes.center[:, None], boxes.half[:, None], boxes.heading[:, None]
    o, d = origin[:, :, None], direction[:, :, None]
    ox, oz = _turn(heading, o[..., 0] - center[..., 0], o[..., 2] - center[..., 2])
    dx, dz = _turn(heading, d[..., 0], d[..., 2])
    oy, dy = o[..., 1] - center[..., 1], d[..., 1]
    ix, iy, iz = 1 / _safe(dx), 1 / _safe(dy), 1 / _safe(dz)
    near_x, far_x = -ox * ix - half[..., 0] * ix.abs(), -ox * ix + half[..., 0] * ix.abs()
    near_y, far_y = -oy * iy - half[..., 1] * iy.abs(), -oy * iy + half[..., 1] * iy.abs()
    near_z, far_z = -oz * iz - half[..., 2] * iz.abs(), -oz * iz + half[..., 2] * iz.abs()
    near = near_x.maximum(near_y).maximum(near_z)
    far = far_x.minimum(far_y).minimum(far_z)
    return torch.where((near <= far) & (near > NEAREST), near, FAR)


def _open(x: Tensor, y: Tensor, z: Tensor, porosity: Tensor) -> Tensor:
    """Where the hull of a perforated ellipsoid has holes; x y z on the unit sphere."""
    field = torch.sin(11.0 * x + 4.0 * y) * torch.sin(12.0 * y - 5.0 * z) + torch.sin(13.0 * z + 6.0 * x + 2.0)
    fine = torch.sin(29.0 * x - 11.0 * z) * torch.sin(31.0 * y + 9.0 * x)
    return field + 0.7 * fine > 2.2 - 2.8 * porosity


def hit_ellipsoids(origin: Tensor, direction: Tensor, ellipsoids: Ellipsoids) -> Tensor:
    """Ray parameters [b r k] of first hits with hulls; through holes, the far side of the hull is seen from inside."""
    center, half, heading = ellipsoids.center[:, None], ellipsoids.half[:, None], ellipsoids.heading[:, None]
    porosity = ellipsoids.porosity[:, None]
    o, d = origin[:, :, None], direction[:, :, None]
    ox, oz = _turn(heading, o[..., 0] - center[..., 0], o[..., 2] - center[..., 2])
    dx, dz = _turn(heading, d[..., 0], d[..., 2])
    ox, oy, oz = ox / half[..., 0], (o[..., 1] - center[..., 1]) / half[..., 1], oz / half[..., 2]
    dx, dy, dz = dx / half[..., 0], d[..., 1] / half[..., 1], dz / half[..., 2]
    a = dx * dx + dy * dy + dz * dz
    # the point nearest the centre first: b^2 - a c would cancel for far away ellipsoids in float32
    middle = -(ox * dx + oy * dy + oz * dz) / a
    x, y, z = ox + middle * dx, oy + middle * dy, oz + middle * dz
    inside = 1 - (x * x + y * y + z * z)
    reach = torch.sqrt(inside.clamp(min=0) / a)
    near, far = middle - reach, middle + reach
    hollow = porosity > 0
    near_open = hollow & _open(x - reach * dx, y - reach * dy, z - reach * dz, porosity)
    far_shut = hollow & ~_open(x + reach * dx, y + reach * dy, z + reach * dz, porosity)
    hit = (inside > 0) & (near > NEAREST)
    t = torch.where(~near_open, near, torch.where(far_shut, far, FAR))
    return torch.where(hit, t, FAR)


def hit_frusta(origin: Tensor, direction: Tensor, frusta: Frusta) -> Tensor:
    """Ray parameters [b r k] of first hits with upright capped cones and cylinders."""
    center, half = frusta.center[:, None], frusta.half[:, None]
    bottom, height, top = half[..., 0], half[..., 1], half[..., 2]
    o, d = origin[:, :, None], direction[:, :, None]
    ox, oz, up = o[..., 0] - center[..., 0], o[..., 2] - center[..., 2], center[..., 1] - o[..., 1]
    dx, dz, rise = d[..., 0], d[..., 2], -d[..., 1]
    taper = (top - bottom) / height
    # shift the start next to the axis first, again for float32
    shift = (-(ox * dx + oz * dz) / (dx * dx + dz * dz).clamp(min=1e-9)).clamp(min=0)
    px, pz, py = ox + shift * dx, oz + shift * dz, up + shift * rise
    radius = bottom + taper * py
    a = dx * dx + dz * dz - (taper * rise) ** 2
    a = torch.where(a.abs() < 1e-9, torch.full_like(a, 1e-9), a)
    half_b = px * dx + pz * dz - taper * rise * radius
    discriminant = half_b * half_b - a * (px * px + pz * pz - radius * radius)
    root = torch.sqrt(discriminant.clamp(min=0))
    first, second = (-half_b - root) / a, (-half_b + root) / a
    best = torch.full_like(first, FAR)
    for s in (first, second):
        y, t = py + s * rise, s + shift
        good = (discriminant > 0) & (y >= 0) & (y <= height) & (t > NEAREST)
        best = torch.where(good, best.minimum(t), best)
    for level, r in ((0.0, bottom), (height, top)):
        t = (level - up) / _safe(rise)
        x, z = ox + t * dx, oz + t * dz
        good = (x * x + z * z <= r * r) & (t > NEAREST)
        best = torch.where(good, best.minimum(t), best)
    return best


def hit_plane(origin: Tensor, direction: Tensor) -> Tensor:
    """Ray parameters [b r] at which rays from above meet the flat ground y = 0."""
    down = direction[..., 1]
    t = -origin[..., 1] / _safe(down)
    return torch.where((down > 0) & (t > NEAREST), t, FAR)


def hit_ground(origin: Tensor, direction: Tensor, ground: Ground) -> Tensor:
    """Ray parameters [b r] at which rays from above meet the wavy ground.

    A search in growing steps, a finer one inside the step that crosses, and two of false position. Both searches
    are reductions over all their steps at once, like those over shapes.
    """
    length = direction.norm(dim=-1)
    b = length.shape[0]

    def clearance(t: Tensor) -> Tensor:
        """Height above the ground [b r s] at ray parameters [b r s]."""
        point = origin[:, :, None] + t[..., None] * direction[:, :, None]
        x, z = point[..., 0].reshape(b, -1), point[..., 2].reshape(b, -1)
        return -point[..., 1] - ground_height(ground, x, z).reshape(t.shape)

    def first_below(t: Tensor) -> Tensor:
        return torch.where(clearance(t) < 0, t, FAR).amin(-1)

    step = torch.arange(MARCH_STEPS, device=length.device, dtype=length.dtype)
    coarse = first_below(MARCH_START_M * MARCH_GROWTH**step / length[..., None])
    is_hit = torch.isfinite(coarse)
    below = torch.where(is_hit, coarse, 1.0)
    width = (below - below / MARCH_GROWTH) / FINE_STEPS
    fine = torch.arange(FINE_STEPS, device=length.device, dtype=length.dtype)
    below = first_below(below[..., None] - fine * width[..., None]).minimum(below)
    above = below - width
    for _ in range(2):
        ends = clearance(torch.stack([above, below], -1))
        high, low = ends[..., 0], ends[..., 1]
        t = above + (below - above) * (high / _safe(high - low)).clamp(0, 1)
        under = clearance(t[..., None])[..., 0] < 0
        above, below = torch.where(under, above, t), torch.where(under, t, below)
    return torch.where(is_hit, t, FAR)


def nearest_shapes(
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    boxes: Boxes,
    ellipsoids: Ellipsoids,
    frusta: Frusta,
) -> Hits:
    """The first shape each ray meets, the ground left out; a miss gets the ground's index.

    Args:
        origin: world frame, metres, outside shapes.
        direction: world frame, any length.
        boxes: of b scenes, at least one slot, like the others.
        ellipsoids: of b scenes.
        frusta: of b scenes.
    """
    best, shape = hit_boxes(origin, direction, boxes).min(dim=-1)
    first = boxes.center.shape[-2]
    for hits, count in (
        (hit_ellipsoids(origin, direction, ellipsoids), ellipsoids.center.shape[-2]),
        (hit_frusta(origin, direction, frusta), frusta.center.shape[-2]),
    ):
        t, index = hits.min(dim=-1)
        shape = torch.where(t < best, index + first, shape)
        best = best.minimum(t)
        first += count
    return Hits(t=best, shape=torch.where(torch.isfinite(best), shape, first))


def with_ground(shapes: Hits, ground_t: Float[Tensor, "b r"], direction: Float[Tensor, "b r 3"], ground: int) -> Hits:
    """Hits with shapes or, where nearer, with the ground (of index `ground`), as far as FAR_M."""
    ground_t = torch.where(ground_t * direction.norm(dim=-1) < FAR_M, ground_t, FAR)
    is_ground = ground_t <= shapes.t
    return Hits(t=shapes.t.minimum(ground_t), shape=torch.where(is_ground, ground, shapes.shape))


def blocked(
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    reach: Float[Tensor, "b r"],
    boxes: Boxes,
    ellipsoids: Ellipsoids,
    frusta: Frusta,
) -> Float[Tensor, "b r"]:
    """1 where a shape lies on the way to the light within `reach` (ray parameter), else 0; the ground casts none."""
    nearest = hit_boxes(origin, direction, boxes).amin(-1)
    nearest = nearest.minimum(hit_ellipsoids(origin, direction, ellipsoids).amin(-1))
    nearest = nearest.minimum(hit_frusta(origin, direction, frusta).amin(-1))
    return (nearest < reach).to(origin.dtype)
