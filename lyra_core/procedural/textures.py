"""Tileable procedural textures by kind (brick, wood, facade, grass ...): the surfaces of the procedural worlds.

Every maker takes a numpy Generator and a size in texels and returns sRGB albedo in [0, 1], [size size 3] float32, that
repeats without a seam. Row 0 is the top, so that bricks and windows stand upright on walls.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from collections.abc import Callable

Image = Float[np.ndarray, "s s 3"]
Grey = Float[np.ndarray, "s s"]


def noise(rng: np.random.Generator, size: int, slope: float = 1.6, stretch: float = 1.0) -> Grey:
    """Fractal noise with a power-law spectrum, tileable, normalised to [0, 1].

    Args:
        rng: source of the phases.
        size: texels.
        slope: amplitude falls with frequency to this power; 0 is white, 2 is soft clouds.
        stretch: above 1, features are that much longer along x than along y.
    """
    fy = np.fft.fftfreq(size)[:, None] * size
    fx = np.fft.rfftfreq(size)[None, :] * size
    radius = np.sqrt((fx * stretch) ** 2 + fy**2)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * radius**-slope
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    low, high = np.quantile(field, [0.01, 0.99])
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)


def cells(rng: np.random.Generator, size: int, count: int) -> tuple[Grey, np.ndarray]:
    """Tileable Voronoi cells of a jittered grid: distance to the border (0 on it) and index of the nearest point."""
    side = max(2, round(count**0.5))
    jitter = rng.random((side, side, 2)).astype(np.float32)
    at = (np.arange(size, dtype=np.float32) + 0.5) / size * side
    home = at.astype(int)
    nearest = np.full((size, size), np.inf, dtype=np.float32)
    second = nearest.copy()
    index = np.zeros((size, size), dtype=int)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            row, column = home + step_y, home + step_x
            point = jitter[(row % side)[:, None], (column % side)[None, :]]
            distance = np.hypot((row - at)[:, None] + point[..., 0], (column - at)[None, :] + point[..., 1])
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            index = np.where(closer, ((row % side) * side)[:, None] + (column % side)[None, :], index)
            nearest = np.where(closer, distance, nearest)
    return np.clip(second - nearest, 0, 1), index


def color(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """A random sRGB colour, uniform in the given ranges of hue, saturation and value."""
    h, s, v = (rng.uniform(*bounds) for bounds in (hue, saturation, value))
    return np.asarray(colorsys.hsv_to_rgb(h % 1.0, s, v), dtype=np.float32)


def blend(dark: np.ndarray, light: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mix of two colours (or images) by a weight image."""
    w = weight[..., None]
    return (dark * (1 - w) + light * w).astype(np.float32)


def soft_step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Cubic step from 0 at `low` to 1 at `high`."""
    u = np.clip((x - low) / (high - low), 0, 1)
    return u * u * (3 - 2 * u)


def courses(
    rng: np.random.Generator, size: int, rows: int, columns: int, joint: float, bond: float
) -> tuple[Grey, Grey, Grey]:
    """A wall of blocks: mask (1 inside a block), a random value for each block, relief (light top, dark foot)."""
    y = (np.arange(size) + 0.5) / size * rows
    row = np.floor(y).astype(int)
    x = ((np.arange(size) + 0.5) / size * columns)[None, :] + (row * bond)[:, None]
    column = np.floor(x).astype(int) % columns
    from_row = np.abs(y - row - 0.5)[:, None] * np.ones((1, size))
    from_column = np.abs(x - np.floor(x) - 0.5)
    edge = joint * columns / rows
    inside = soft_step(0.0, joint * 0.7, 0.5 - from_row - joint / 2) * soft_step(
        0.0, edge * 0.7 + 1e-6, 0.5 - from_column - edge / 2
    )
    value = rng.random((rows, columns))[row[:, None], column]
    relief = 1.05 - 0.12 * (y - row)[:, None] * np.ones((1, size))
    return inside.astype(np.float32), value.astype(np.float32), relief.astype(np.float32)


def plaster(rng: np.random.Generator, size: int) -> Image:
    """Painted plaster or plain wall paint."""
    base = color(rng, (0.0, 1.0), (0.02, 0.32), (0.55, 0.95))
    return base * (0.86 + 0.1 * noise(rng, size, 1.3) + 0.08 * noise(rng, size, 0.4))[..., None]


def concrete(rng: np.random.Generator, size: int) -> Image:
    """Cast concrete with stains and pores."""
    base = color(rng, (0.05, 0.15), (0.0, 0.12), (0.4, 0.7))
    pores = soft_step(0.75, 0.9, noise(rng, size, 0.5))
    return base * (0.7 + 0.4 * noise(rng, size, 1.7) - 0.15 * pores)[..., None]


def brick(rng: np.random.Generator, size: int) -> Image:
    """Bricks in running bond."""
    inside, value, relief = courses(rng, size, int(rng.integers(8, 15)), int(rng.integers(3, 6)), 0.12, 0.5)
    base = color(rng, (-0.02, 0.1), (0.2, 0.65), (0.4, 0.75))
    other = base * rng.uniform(0.55, 0.85) + rng.uniform(-0.05, 0.05, 3).astype(np.float32)
    mortar = color(rng, (0.05, 0.15), (0.0, 0.15), (0.5, 0.8))
    bricks = blend(base, other, value) * (relief * (0.8 + 0.35 * noise(rng, size, 1.0)))[..., None]
    return blend(np.broadcast_to(mortar, bricks.shape) * (0.8 + 0.3 * noise(rng, size, 0.8))[..., None], bricks, inside)


def stone(rng: np.random.Generator, size: int) -> Image:
    """Irregular stone masonry or paving."""
    gap, index = cells(rng, size, int(rng.integers(24, 60)))
    base = color(rng, (0.04, 0.14), (0.05, 0.3), (0.45, 0.8))
    shade = rng.uniform(0.6, 1.15, index.max() + 1)[index] * (0.7 + 0.45 * noise(rng, size, 1.1))
    return base * (shade * (0.35 + 0.65 * soft_step(0.02, 0.14, gap)))[..., None]


def tile(rng: np.random.Generator, size: int) -> Image:
    """Square tiles, plain, two-coloured or with a motif."""
    count = int(rng.choice([4, 6, 8]))
    inside, value, _ = courses(rng, size, count, count, 0.06, 0.0)
    base = color(rng, (0.0, 1.0), (0.03, 0.4), (0.55, 0.95))
    other = color(rng, (0.0, 1.0), (0.03, 0.5), (0.2, 0.9))
    u = np.arange(size) * count // size
    pattern = rng.integers(3)
    if pattern == 0:
        value = ((u[:, None] + u[None, :]) % 2).astype(np.float32)
    elif pattern == 1:
        wave = np.sin(np.arange(size) / size * count * 2 * np.pi)
        value = soft_step(-0.1, 0.1, wave[:, None] * wave[None, :] - rng.uniform(-0.3, 0.5))
    else:
        other = base * rng.uniform(0.8, 0.95)
    grain = 0.88 + 0.14 * noise(rng, size, 1.4)
    grout = color(rng, (0.0, 0.2), (0.0, 0.1), (0.3, 0.8))
    return blend(np.broadcast_to(grout, (size, size, 3)), blend(base, other, value) * grain[..., None], inside)


def wood(rng: np.random.Generator, size: int) -> Image:
    """Boards along x, as floor, table or panel."""
    boards, lengths = int(rng.integers(4, 9)), int(rng.integers(1, 4))
    inside, value, _ = courses(rng, size, boards, lengths, 0.05, float(rng.choice([0.0, 0.37])))
    base = color(rng, (0.04, 0.11), (0.3, 0.65), (0.3, 0.85))
    grain = noise(rng, size, 1.2, stretch=14.0)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (noise(rng, size, 1.8, stretch=6.0) * 5 + value))
    shade = (0.65 + 0.3 * value) * (0.75 + 0.3 * grain + 0.12 * rings)
    return base * (shade * (0.4 + 0.6 * inside))[..., None]


def fabric(rng: np.random.Generator, size: int) -> Image:
    """Woven cloth, carpet or wallpaper: stripes, checks or plain weave."""
    base = color(rng, (0.0, 1.0), (0.05, 0.6), (0.25, 0.85))
    other = color(rng, (0.0, 1.0), (0.05, 0.6), (0.25, 0.9))
    u = (np.arange(size) + 0.5) / size
    bands = soft_step(-0.15, 0.15, np.sin(2 * np.pi * u * rng.integers(3, 9)) + rng.uniform(-0.6, 0.6))
    style = rng.integers(4)
    if style == 0:
        weight = np.broadcast_to(bands[None, :], (size, size))
    elif style == 1:
        weight = 0.5 * (bands[None, :] + bands[:, None])
    elif style == 2:
        gap, index = cells(rng, size, 40)
        weight = rng.random(index.max() + 1)[index] * soft_step(0.05, 0.25, gap)
    else:
        weight = noise(rng, size, 1.0)
    weave = 0.85 + 0.15 * noise(rng, size, 0.2)
    return blend(base, other, weight.astype(np.float32)) * weave[..., None]


def facade(rng: np.random.Generator, size: int) -> Image:
    """Two by two windows of a house front, with frames, sills and reflections."""
    wall = np.tile([plaster, brick, concrete][int(rng.integers(3))](rng, size)[::2, ::2], (2, 2, 1))
    columns, rows = int(rng.integers(2, 4)), 2
    x = (np.arange(size) + 0.5) / size * columns % 1.0
    y = (np.arange(size) + 0.5) / size * rows % 1.0
    half_w, half_h = rng.uniform(0.2, 0.36), rng.uniform(0.22, 0.36)
    dx, dy = np.abs(x - 0.5)[None, :], np.abs(y - 0.48)[:, None]
    frame = ((dx < half_w) & (dy < half_h)).astype(np.float32)
    bar = rng.uniform(0.02, 0.04)
    mullion = (np.abs(x - 0.5) < bar / 2)[None, :] | (np.abs(y - 0.4) < bar / 2)[:, None]
    glass = ((dx < half_w - bar) & (dy < half_h - bar) & ~mullion).astype(np.float32)
    sill = ((dx < half_w + 0.05) & (np.abs(y - 0.48 - half_h - 0.03)[:, None] < 0.03)).astype(np.float32)
    lintel = ((dx < half_w) & (np.abs(y - 0.48 + half_h + 0.02)[:, None] < 0.02)).astype(np.float32)
    pane = rng.random((rows, columns))[
        (np.arange(size) * rows // size)[:, None], (np.arange(size) * columns // size)[None, :]
    ]
    sky = color(rng, (0.52, 0.62), (0.1, 0.4), (0.25, 0.75))
    reflection = (0.45 + 0.5 * pane * (1 - y)[:, None] + 0.25 * noise(rng, size, 2.0))[..., None] * sky
    paint = color(rng, (0.0, 1.0), (0.0, 0.4), (0.2, 0.98))
    out = blend(wall, wall * 0.6, lintel)
    out = blend(out, np.broadcast_to(paint, out.shape), frame)
    out = blend(out, reflection, glass)
    return blend(out, np.broadcast_to(paint * 0.9, out.shape), sill)


def grass(rng: np.random.Generator, size: int) -> Image:
    """Meadow with blades, dry patches and, sometimes, flowers."""
    base = color(rng, (0.17, 0.3), (0.4, 0.7), (0.3, 0.6))
    dry = color(rng, (0.1, 0.17), (0.35, 0.6), (0.4, 0.7))
    blades = noise(rng, size, 0.6, stretch=0.3) * 0.6 + noise(rng, size, 0.3) * 0.4
    out = blend(base, dry, 0.7 * soft_step(0.4, 0.95, noise(rng, size, 1.7))) * (0.45 + 0.75 * blades)[..., None]
    if rng.random() < 0.4:
        flowers = soft_step(0.965, 0.99, noise(rng, size, 0.7))
        out = blend(out, np.broadcast_to(color(rng, (0.0, 1.0), (0.1, 0.8), (0.8, 1.0)), out.shape), flowers)
    return out


def soil(rng: np.random.Generator, size: int) -> Image:
    """Earth, sand or gravel."""
    base = color(rng, (0.04, 0.13), (0.15, 0.55), (0.35, 0.85))
    gap, index = cells(rng, size, 120)
    pebbles = rng.uniform(0.7, 1.2, index.max() + 1)[index] * soft_step(0.0, 0.3, gap)
    weight = rng.uniform(0.0, 0.7)
    return base * ((0.6 + 0.5 * noise(rng, size, 1.2)) * (1 - weight + weight * pebbles))[..., None]


def rock(rng: np.random.Generator, size: int) -> Image:
    """Bare rock with cracks and lichen."""
    base = color(rng, (0.04, 0.65), (0.02, 0.2), (0.4, 0.75))
    cracks = np.abs(noise(rng, size, 1.3) - 0.5) * 2
    shade = (0.55 + 0.55 * noise(rng, size, 1.1)) * (0.5 + 0.5 * soft_step(0.0, 0.12, cracks))
    moss = color(rng, (0.14, 0.3), (0.2, 0.6), (0.35, 0.7))
    return blend(base, moss, 0.6 * soft_step(0.6, 0.85, noise(rng, size, 1.5))) * shade[..., None]


def snow(rng: np.random.Generator, size: int) -> Image:
    """Snow with soft drifts."""
    return (
        color(rng, (0.55, 0.62), (0.0, 0.08), (0.88, 1.0))
        * (0.85 + 0.12 * noise(rng, size, 1.8) + 0.04 * noise(rng, size, 0.2))[..., None]
    )


def foliage(rng: np.random.Generator, size: int) -> Image:
    """Leaves or needles, dark between them; green to autumn."""
    gap, index = cells(rng, size, int(rng.integers(400, 1200)))
    hue = (0.2, 0.33) if rng.random() < 0.7 else (0.03, 0.15)
    base, other = (color(rng, hue, (0.4, 0.75), (0.35, 0.7)) for _ in range(2))
    leaves = blend(base, other, rng.random(index.max() + 1).astype(np.float32)[index])
    shade = (0.3 + 0.7 * soft_step(0.0, 0.45, gap)) * (0.5 + 0.6 * noise(rng, size, 1.0))
    return leaves * shade[..., None]


def bark(rng: np.random.Generator, size: int) -> Image:
    """Bark with vertical furrows."""
    base = color(rng, (0.04, 0.12), (0.1, 0.45), (0.3, 0.7))
    furrows = noise(rng, size, 1.0, stretch=0.18)
    return base * (0.35 + 0.75 * soft_step(0.2, 0.7, furrows))[..., None]


def asphalt(rng: np.random.Generator, size: int) -> Image:
    """Asphalt with grain, patches and cracks."""
    base = color(rng, (0.55, 0.65), (0.0, 0.08), (0.25, 0.5))
    cracks = np.abs(noise(rng, size, 1.5) - 0.5) * 2
    grain = 0.75 + 0.3 * noise(rng, size, 0.1) + 0.2 * noise(rng, size, 1.8)
    return base * (grain * (0.7 + 0.3 * soft_step(0.0, 0.04, cracks)))[..., None]


def metal(rng: np.random.Generator, size: int) -> Image:
    """Painted or brushed metal panels."""
    base = color(rng, (0.0, 1.0), (0.0, 0.7), (0.25, 0.9))
    inside, value, _ = courses(rng, size, 2, 2, 0.02, 0.0)
    brushed = 0.9 + 0.12 * noise(rng, size, 0.5, stretch=20.0)
    rust = soft_step(0.75, 0.95, noise(rng, size, 1.5)) * rng.uniform(0.0, 0.6)
    panel = base * ((0.92 + 0.08 * value) * brushed * (0.55 + 0.45 * inside))[..., None]
    return blend(panel, np.broadcast_to(color(rng, (0.03, 0.07), (0.5, 0.8), (0.3, 0.5)), panel.shape), rust)


def books(rng: np.random.Generator, size: int) -> Image:
    """Four shelves of book spines."""
    out = np.empty((size, size, 3), dtype=np.float32)
    wood_edge = color(rng, (0.05, 0.1), (0.3, 0.6), (0.25, 0.6))
    shelves, depth = 4, size // 4
    for shelf in range(shelves):
        top = shelf * depth
        out[top : top + depth] = wood_edge * 0.25
        x = 0
        while x < size:
            width = int(rng.integers(max(2, size // 50), max(4, size // 16)))
            tall = int(depth * rng.uniform(0.6, 0.9))
            spine = color(rng, (0.0, 1.0), (0.1, 0.8), (0.2, 0.9))
            out[top + depth - tall : top + depth, x : x + width] = spine
            band = top + depth - int(tall * rng.uniform(0.6, 0.85))
            out[band : band + max(1, size // 64), x : x + width] = 1 - spine
            out[top + depth - tall : top + depth, x : x + 1] *= 0.5
            x += width
        out[top + depth - max(2, size // 40) : top + depth] = wood_edge
    return out * (0.9 + 0.1 * noise(rng, size, 0.8))[..., None]


def poster(rng: np.random.Generator, size: int) -> Image:
    """An abstract picture: what hangs in frames and on billboards where there is no photograph."""
    out = np.broadcast_to(color(rng, (0.0, 1.0), (0.05, 0.5), (0.3, 0.95)), (size, size, 3)).copy()
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    for _ in range(int(rng.integers(4, 12))):
        cx, cy, r = rng.random(), rng.random(), rng.uniform(0.05, 0.4)
        angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.15, 1.0)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (-(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)) / aspect
        span = np.maximum(np.abs(u), np.abs(v)) if rng.random() < 0.5 else np.hypot(u, v)
        mask = soft_step(0.0, 0.02, r - span) * rng.uniform(0.6, 1.0)
        out = blend(out, np.broadcast_to(color(rng, (0.0, 1.0), (0.1, 0.85), (0.15, 1.0)), out.shape), mask)
    return out * (0.85 + 0.2 * noise(rng, size, 1.4))[..., None]


def cloud(rng: np.random.Generator, size: int) -> Image:
    """Cloud density in grey; also serves as the large-scale grime of other surfaces."""
    return np.repeat(noise(rng, size, 1.9)[..., None], 3, axis=-1)


KINDS: dict[str, Callable[[np.random.Generator, int], Image]] = {
    "cloud": cloud,
    "plaster": plaster,
    "concrete": concrete,
    "brick": brick,
    "stone": stone,
    "tile": tile,
    "wood": wood,
    "fabric": fabric,
    "facade": facade,
    "grass": grass,
    "soil": soil,
    "rock": rock,
    "snow": snow,
    "foliage": foliage,
    "bark": bark,
    "asphalt": asphalt,
    "metal": metal,
    "books": books,
    "picture": poster,
}
"""Kinds in the order of their index; "picture" is a photograph where the atlas has any."""

KIND_INDEX = {name: index for index, name in enumerate(KINDS)}


def make_texture(kind: str, seed: int, size: int) -> Image:
    """One texture, the same for the same kind, seed and size.

    Raises:
        KeyError: a kind that is not in KINDS.
    """
    rng = np.random.Generator(np.random.PCG64([KIND_INDEX[kind], seed]))
    return np.clip(KINDS[kind](rng, size), 0, 1).astype(np.float32)
