"""Things that stand in procedural scenes, each built at the origin of its builder and described by one noun phrase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lyra_core.procedural.builder import Look, SceneBuilder, look

if TYPE_CHECKING:
    from collections.abc import Callable


def _cloth(rng: np.random.Generator) -> Look:
    return look(rng, "fabric", 0.9)


def _timber(rng: np.random.Generator) -> Look:
    return look(rng, "wood", 1.1, gloss=float(rng.uniform(0.0, 0.25)))


def table(at: SceneBuilder) -> str:
    """A table on legs, with things on it."""
    rng = at.rng
    width, deep, tall = rng.uniform(0.9, 1.9), rng.uniform(0.7, 1.0), rng.uniform(0.68, 0.78)
    timber = _timber(rng)
    at.box((0, 0), (width, 0.05, deep), tall - 0.05, timber)
    if rng.random() < 0.6:
        for x in (-1, 1):
            for z in (-1, 1):
                at.box((x * (width / 2 - 0.08), z * (deep / 2 - 0.08)), (0.06, tall - 0.05, 0.06), 0, timber)
    else:
        at.frustum((0, 0), 0.3, 0.06, tall - 0.05, 0, timber)
    at.frustum((-width * 0.25, 0.05), 0.06, 0.1, 0.22, tall, look(rng, "metal", 0.6, gloss=0.6))
    if rng.random() < 0.6:
        at.ellipsoid((width * 0.2, 0.1), (0.11, 0.09, 0.11), tall, look(rng, "plaster", 0.5, gloss=0.5))
    return "a table"


def chair(at: SceneBuilder) -> str:
    """A chair."""
    how = _timber(at.rng) if at.rng.random() < 0.5 else _cloth(at.rng)
    at.box((0, 0), (0.46, 0.06, 0.46), 0.42, how)
    at.box((0, 0.21), (0.46, 0.5, 0.05), 0.48, how)
    at.frustum((0, 0), 0.2, 0.05, 0.42, 0, look(at.rng, "metal", 0.7, gloss=0.5))
    return "a chair"


def sofa(at: SceneBuilder) -> str:
    """A sofa with two arms."""
    how = _cloth(at.rng)
    width = at.rng.uniform(1.5, 2.3)
    at.box((0, 0), (width, 0.42, 0.85), 0, how)
    at.box((0, 0.36), (width, 0.45, 0.2), 0.42, how)
    for side in (-1, 1):
        at.box((side * (width / 2 + 0.09), 0.0), (0.18, 0.6, 0.92), 0, how)
    at.ellipsoid((width * 0.28, 0.1), (0.22, 0.16, 0.14), 0.42, _cloth(at.rng))
    return "a sofa"


def bed(at: SceneBuilder) -> str:
    """A bed with headboard and pillow."""
    timber = _timber(at.rng)
    at.box((0, 0), (1.5, 0.3, 2.0), 0, timber)
    at.box((0, -0.05), (1.44, 0.22, 1.9), 0.3, _cloth(at.rng))
    at.box((0, 1.0), (1.6, 1.0, 0.08), 0, timber)
    at.ellipsoid((0.3, 0.72), (0.32, 0.1, 0.2), 0.5, look(at.rng, "fabric", 0.6))
    return "a bed"


def shelf(at: SceneBuilder) -> str:
    """A bookcase."""
    width, tall = at.rng.uniform(0.8, 1.6), at.rng.uniform(1.4, 2.2)
    at.box((0, 0), (width, tall, 0.3), 0, look(at.rng, "books", 1.0, is_fitted=True))
    edge = _timber(at.rng)
    at.box((0, 0), (width + 0.08, 0.05, 0.36), tall, edge)
    return "a bookcase"


def cabinet(at: SceneBuilder) -> str:
    """A chest of drawers with a vase."""
    width, tall = at.rng.uniform(0.7, 1.5), at.rng.uniform(0.7, 1.1)
    at.box((0, 0), (width, tall, 0.45), 0.06, _timber(at.rng))
    at.box((0, 0), (width + 0.05, 0.04, 0.5), tall + 0.06, _timber(at.rng))
    at.frustum((width * 0.2, 0), 0.1, 0.04, 0.3, tall + 0.1, look(at.rng, "metal", 0.5, gloss=0.7))
    return "a chest of drawers"


def lamp(at: SceneBuilder) -> str:
    """A standing lamp with a glowing shade."""
    at.frustum((0, 0), 0.16, 0.02, 1.45, 0, look(at.rng, "metal", 0.5, gloss=0.5))
    at.frustum((0, 0), 0.24, 0.13, 0.3, 1.4, look(at.rng, "fabric", 0.7, emission=float(at.rng.uniform(0.6, 2.0))))
    return "a standing lamp"


def potted_plant(at: SceneBuilder) -> str:
    """A plant in a pot."""
    at.frustum((0, 0), 0.14, 0.2, 0.34, 0, look(at.rng, "soil", 0.8))
    tall = at.rng.uniform(0.3, 0.6)
    at.ellipsoid((0, 0), (0.36, tall, 0.36), 0.3, look(at.rng, "foliage", 0.5), porosity=0.62)
    return "a potted plant"


def column(at: SceneBuilder) -> str:
    """A column from floor to ceiling."""
    how = look(at.rng, str(at.rng.choice(["plaster", "stone", "concrete"])), 1.5)
    at.frustum((0, 0), 0.22, 0.18, 3.2, 0, how)
    at.box((0, 0), (0.6, 0.15, 0.6), 0, how)
    return "a column"


def crates(at: SceneBuilder) -> str:
    """A stack of crates."""
    size = at.rng.uniform(0.4, 0.7)
    at.box((0, 0), (size, size, size), 0, look(at.rng, "wood", 0.8))
    at.box((size * 1.1, 0.08), (size * 0.8, size * 0.8, size * 0.8), 0, look(at.rng, "wood", 0.7))
    at.box((0.05, 0.02), (size * 0.7, size * 0.6, size * 0.7), size, look(at.rng, "wood", 0.6))
    return "wooden crates"


def ball(at: SceneBuilder) -> str:
    """A large ball."""
    r = at.rng.uniform(0.15, 0.4)
    at.ellipsoid((0, 0), (r, r, r), 0, look(at.rng, "fabric", 0.9, gloss=0.3))
    return "a ball"


def leafy_tree(at: SceneBuilder) -> str:
    """A broad-leaved tree with a crown of three parts."""
    rng = at.rng
    tall = rng.uniform(1.8, 3.2)
    at.frustum((0, 0), rng.uniform(0.14, 0.26), 0.09, tall + 1.0, -0.3, look(rng, "bark", 0.8))
    leaves = look(rng, "foliage", 1.1)
    for _ in range(2):
        r = rng.uniform(0.9, 1.7)
        x, z = rng.uniform(-0.5, 0.5, 2)
        porosity = float(rng.uniform(0.45, 0.62))
        at.ellipsoid((x, z), (r, r * rng.uniform(0.7, 1.1), r), tall - 0.2 + rng.uniform(0, 0.8), leaves, porosity)
    return "trees"


def conifer(at: SceneBuilder) -> str:
    """A conifer of two cones, ragged like needles where it is seen against the sky."""
    rng = at.rng
    tall = rng.uniform(3.0, 8.0)
    wide = tall * rng.uniform(0.16, 0.26)
    at.frustum((0, 0), 0.16, 0.1, tall * 0.5, -0.3, look(rng, "bark", 0.8))
    needles = look(rng, "foliage", 0.6, grime=0.6)
    at.frustum((0, 0), wide, 0.02, tall * 0.75, 0.25 * tall, needles)
    for low in (0.12, 0.4):
        r = wide * (1.25 - low)
        at.ellipsoid((0, 0), (r, tall * 0.16, r), tall * low, needles, float(rng.uniform(0.5, 0.62)))
    return "conifers"


def bush(at: SceneBuilder) -> str:
    """A bush."""
    r = at.rng.uniform(0.4, 1.0)
    at.ellipsoid((0, 0), (r, r * 0.8, r), -0.15, look(at.rng, "foliage", 0.7), float(at.rng.uniform(0.35, 0.6)))
    return "bushes"


def boulder(at: SceneBuilder) -> str:
    """A boulder, partly buried."""
    x, y, z = at.rng.uniform(0.3, 1.5) * at.rng.uniform(0.6, 1.3, 3)
    at.ellipsoid((0, 0), (x, y, z), -0.6 * y, look(at.rng, "rock", 1.7))
    return "boulders"


def cabin(at: SceneBuilder) -> str:
    """A hut with a flat overhanging roof, a door and a window."""
    rng = at.rng
    width, deep, tall = rng.uniform(3, 5), rng.uniform(3, 4.5), rng.uniform(2.3, 2.9)
    at.box((0, 0), (width, tall + 1, deep), -1, look(rng, str(rng.choice(["wood", "stone", "brick"])), 2.0))
    at.box((0, 0), (width + 0.8, 0.25, deep + 0.8), tall, look(rng, str(rng.choice(["metal", "wood"])), 1.5))
    at.box((-width * 0.2, -deep / 2), (0.9, 2.0, 0.1), 0, look(rng, "wood", 1.0))
    at.box((width * 0.22, -deep / 2), (0.9, 0.8, 0.1), 1.0, look(rng, "metal", 2.0, gloss=0.8))
    return "a cabin"


def fence(at: SceneBuilder) -> str:
    """Two rails on three posts."""
    timber = look(at.rng, "wood", 1.3)
    for x in (-2.0, 0.0, 2.0):
        at.box((x, 0), (0.12, 1.6, 0.12), -0.5, timber)
    for low in (0.45, 0.85):
        at.box((0, 0), (4.2, 0.1, 0.05), low, timber)
    return "a wooden fence"


def car(at: SceneBuilder) -> str:
    """A parked car, along z."""
    rng = at.rng
    paint = look(rng, "metal", 9.0, gloss=0.8, grime=0.1)
    at.box((0, 0), (1.75, 0.6, 4.1), 0.32, paint)
    at.box(
        (0, 0.2), (1.55, 0.55, 2.1), 0.92, Look(kind="metal", variant=paint.variant, tint=(0.2, 0.24, 0.3), gloss=1.0)
    )
    at.box((0, 0.2), (1.57, 0.05, 1.8), 1.44, paint)
    dark = Look(kind="asphalt", variant=0.5, tint=(0.25, 0.25, 0.25))
    at.box((0, -1.25), (1.78, 0.5, 0.6), 0, dark)
    at.box((0, 1.25), (1.78, 0.5, 0.6), 0, dark)
    return "parked cars"


def street_lamp(at: SceneBuilder) -> str:
    """A street lamp."""
    how = look(at.rng, "metal", 1.5)
    at.frustum((0, 0), 0.1, 0.05, 4.6, 0, how)
    at.box((0.4, 0), (1.0, 0.1, 0.2), 4.55, how)
    return "street lamps"


def billboard(at: SceneBuilder) -> str:
    """A picture on a post."""
    at.frustum((0, 0.1), 0.08, 0.08, 2.0, 0, look(at.rng, "metal", 1.0))
    at.box((0, 0), (2.4, 1.6, 0.12), 1.0, look(at.rng, "picture", is_fitted=True, grime=0.1))
    return "a billboard"


def bench(at: SceneBuilder) -> str:
    """A bench."""
    timber = _timber(at.rng)
    at.box((0, 0), (1.6, 0.07, 0.45), 0.42, timber)
    at.box((0, 0.22), (1.6, 0.4, 0.06), 0.55, timber)
    at.box((0, 0), (1.3, 0.42, 0.3), 0, look(at.rng, "concrete", 1.0))
    return "a bench"


FURNITURE: tuple[Callable[[SceneBuilder], str], ...] = (
    table,
    chair,
    chair,
    sofa,
    bed,
    shelf,
    shelf,
    cabinet,
    lamp,
    potted_plant,
    column,
    crates,
    ball,
)
