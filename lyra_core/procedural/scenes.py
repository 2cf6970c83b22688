"""Compositions: rooms with doorways, streets, open country and tabletops, each from one random stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lyra_core.procedural import objects
from lyra_core.procedural.atlas import stream_seed
from lyra_core.procedural.builder import Length, Look, Pair, SceneBuilder, look
from lyra_core.procedural.primitives import Ground, Light
from lyra_core.procedural.scene_batch import CAPACITY, Scene
from lyra_core.procedural.surroundings import daylight, flat_ground, lamplight, rolling_ground

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What a composer decides besides the shapes it built."""

    caption: str
    ground: Look
    waves: Ground
    light: Light
    size_m: float
    stand: tuple[float, float, float, float]
    eye_m: tuple[float, float]
    pitch_rad: float


def _wall(build: SceneBuilder, start: Pair, length: Length, turn: Length, tall: Length, how: Look) -> str:
    """A wall along its own x axis, solid or with a doorway or a window; returns what it holds."""
    rng = build.rng
    at = build.at(*start, turn)
    choice = rng.choice(["solid", "doorway", "window"], p=[0.3, 0.4, 0.3]) if length > 2.6 else "solid"
    thick = 0.16
    if choice == "solid":
        at.box((0, 0), (length, tall, thick), 0, how)
        return ""
    width = rng.uniform(1.0, 1.5) if choice == "doorway" else rng.uniform(1.0, min(2.2, length * 0.6))
    sill, head = (
        (0.0, rng.uniform(2.0, 2.25)) if choice == "doorway" else (rng.uniform(0.7, 1.0), rng.uniform(1.9, 2.3))
    )
    center = rng.uniform(-0.5, 0.5) * (length - width - 0.6)
    left, right = center - width / 2 + length / 2, length / 2 - center - width / 2
    at.box((-length / 2 + left / 2, 0), (left, tall, thick), 0, how)
    at.box((length / 2 - right / 2, 0), (right, tall, thick), 0, how)
    at.box((center, 0), (width, tall - head, thick), head, how)
    if sill > 0:
        at.box((center, 0), (width, sill, thick), 0, how)
        at.box((center, -0.05), (width + 0.1, 0.05, 0.28), sill, look(rng, "plaster", 2.0, gloss=0.2))
    return "a doorway" if choice == "doorway" else "a window"


def _spread(
    rng: np.random.Generator, count: int, bounds: tuple[float, float, float, float], gap: float
) -> list[tuple[float, float]]:
    """Up to `count` points at least `gap` apart inside least x, z, greatest x, z."""
    points: list[tuple[float, float]] = []
    for _ in range(count * 12):
        x, z = float(rng.uniform(bounds[0], bounds[2])), float(rng.uniform(bounds[1], bounds[3]))
        if all(math.hypot(x - px, z - pz) >= gap for px, pz in points):
            points.append((x, z))
        if len(points) == count:
            break
    return points


def _listing(nouns: list[str]) -> str:
    """Nouns as English: "a, b and c", each once."""
    unique = list(dict.fromkeys(noun for noun in nouns if noun))[:4]
    if len(unique) < 2:
        return "".join(unique)
    return f"{', '.join(unique[:-1])} and {unique[-1]}"


def compose_room(build: SceneBuilder) -> Composition:
    """A furnished room whose doorways lead into a second ring of space or outdoors."""
    rng = build.rng
    half_w, half_d, tall = rng.uniform(2.0, 4.2), rng.uniform(2.0, 4.2), rng.uniform(2.5, 3.1)
    wall_kind = str(rng.choice(["plaster", "plaster", "fabric", "brick", "wood", "concrete", "tile"]))
    paint = look(rng, wall_kind, float(rng.uniform(1.2, 2.6)))
    nouns = []
    walls = (
        ((0.0, half_d), 2 * half_w, 0.0),
        ((0.0, -half_d), 2 * half_w, math.pi),
        ((half_w, 0.0), 2 * half_d, -math.pi / 2),
        ((-half_w, 0.0), 2 * half_d, math.pi / 2),
    )
    for start, length, turn in walls:
        how = paint if rng.random() < 0.7 else look(rng, wall_kind, 2.0)
        nouns.append(_wall(build, start, length, turn, tall, how))
    is_enclosed = rng.random() < 0.55
    ring = float(rng.uniform(2.0, 4.5)) if is_enclosed else 0.3
    build.at(0, 0).box((0, 0), (2 * (half_w + ring), 0.2, 2 * (half_d + ring)), tall, look(rng, "plaster", 3.0))
    if is_enclosed:
        outer = look(rng, str(rng.choice(["plaster", "brick", "wood", "stone"])), 2.0)
        for start, length, turn in walls:
            middle = (
                start[0] + math.copysign(ring, start[0]) * (start[0] != 0),
                start[1] + math.copysign(ring, start[1]) * (start[1] != 0),
            )
            build.at(*middle, turn).box((0, 0), (length + 2 * ring, tall, 0.2), 0, outer)
        nouns.append("another room beyond")
    nouns += _furnish(build, half_w, half_d)
    if rng.random() < (0.75 if is_enclosed else 0.35):
        where = (float(rng.uniform(-0.5, 0.5)) * half_w, -tall + 0.25, float(rng.uniform(-0.5, 0.5)) * half_d)
        light = lamplight(rng, where, reach_m=float(rng.uniform(3.0, 5.0)))
        glow = Look(kind="plaster", variant=0.0, emission=3.0)
        build.at(where[0], where[2]).ellipsoid((0, 0), (0.14, 0.07, 0.14), tall - 0.16, glow)
    else:
        light = daylight(rng, haze_per_m=0.002, indoors=float(rng.uniform(0.2, 0.45)))
    floor = look(
        rng,
        str(rng.choice(["wood", "wood", "tile", "fabric", "stone", "concrete"])),
        1.6,
        gloss=float(rng.uniform(0, 0.3)),
    )
    return Composition(
        caption=f"a room with {_listing(nouns)}" if any(nouns) else "an empty room",
        ground=floor,
        waves=flat_ground(),
        light=light,
        size_m=1.0,
        stand=(-half_w + 0.5, -half_d + 0.5, half_w - 0.5, half_d - 0.5),
        eye_m=(1.1, 1.75),
        pitch_rad=0.08,
    )


def _furnish(build: SceneBuilder, half_w: float, half_d: float) -> list[str]:
    """Furniture along the walls and in the middle, a rug, and pictures."""
    rng, nouns = build.rng, []
    if rng.random() < 0.5:
        size = (rng.uniform(1.4, 2.6), 0.02, rng.uniform(1.2, 2.0))
        build.at(0, 0, float(rng.uniform(-0.3, 0.3))).box((0, 0), size, 0, look(rng, "fabric", 1.0))
    for side in range(4):
        along = half_w if side < 2 else half_d
        if rng.random() < 0.7:
            turn = (0.0, math.pi, -math.pi / 2, math.pi / 2)[side]
            reach = (half_d if side < 2 else half_w) - 0.1
            offset = float(rng.uniform(-0.7, 0.7)) * along
            x, z = ((offset, reach), (offset, -reach), (reach, offset), (-reach, offset))[side]
            width, tall = rng.uniform(0.6, 1.5), rng.uniform(0.5, 1.0)
            at = build.at(x, z, turn)
            at.box(
                (0, -0.02),
                (width, tall, 0.05),
                float(rng.uniform(1.2, 1.5)),
                look(rng, "picture", is_fitted=True, grime=0.1),
            )
            nouns.append("pictures")
    spots = _spread(rng, 8, (-half_w + 0.6, -half_d + 0.6, half_w - 0.6, half_d - 0.6), 1.35)
    for x, z in spots:
        if len(build.boxes) > CAPACITY[0] - 7 or len(build.frusta) > CAPACITY[2] - 3:
            break
        piece: Callable[[SceneBuilder], str] = objects.FURNITURE[int(rng.integers(len(objects.FURNITURE)))]
        # the back of a piece turns to the nearest wall
        if half_w - abs(x) < half_d - abs(z):
            turn = -math.pi / 2 if x > 0 else math.pi / 2
        else:
            turn = 0.0 if z > 0 else math.pi
        nouns.append(piece(build.at(x, z, turn + float(rng.normal(0, 0.08)))))
    return nouns


def compose_street(build: SceneBuilder) -> Composition:
    """A street between house fronts, with pavements, trees, lamps and cars."""
    rng, nouns = build.rng, ["house fronts"]
    road, walk = rng.uniform(2.8, 5.0), rng.uniform(1.6, 3.0)
    front = road + walk
    for side in (-1, 1):
        pavement = look(rng, str(rng.choice(["concrete", "stone", "tile"])), 2.0)
        build.at(side * (road + walk / 2), 18).box((0, 0), (walk, 0.14, 70), 0, pavement)
        z = rng.uniform(-12, -6)
        while z < 42 and len(build.boxes) < 22:
            width, tall = rng.uniform(5, 12), rng.uniform(4, 17)
            kind = str(rng.choice(["facade", "facade", "facade", "facade", "brick", "plaster", "picture"]))
            repeat = float(rng.uniform(4.5, 6.5)) if kind == "facade" else 3.0
            at = build.at(side * (front + 4), z + width / 2)
            at.box((0, 0), (8 - rng.uniform(0, 0.8), tall, width), 0, look(rng, kind, repeat))
            if rng.random() < 0.4:
                at.box((0, 0), (8.4, 0.3, width + 0.1), tall, look(rng, "concrete", 2.0))
            z += width + (rng.uniform(1.5, 4) if rng.random() < 0.3 else 0.0)
    if rng.random() < 0.6:
        build.at(float(rng.uniform(-4, 4)), 48).box(
            (0, 0), (rng.uniform(10, 24), rng.uniform(5, 20), 6), 0, look(rng, "facade", 5.5)
        )
    white = Look(kind="plaster", variant=0.5, tint=(1.2, 1.2, 1.2))
    for z in range(-4, 24, 5):
        build.at(0, float(z)).box((0, 0), (0.14, 0.008, 2.0), 0, white)
    for side in (-1, 1):
        for z in np.arange(rng.uniform(-2, 4), 34, rng.uniform(6, 11)):
            if len(build.frusta) > CAPACITY[2] - 3 or len(build.ellipsoids) > CAPACITY[1] - 4:
                break
            at = build.at(side * (road + 0.6), float(z), 0.0 if side < 0 else math.pi)
            thing = (objects.leafy_tree, objects.leafy_tree, objects.street_lamp, objects.conifer)[int(rng.integers(4))]
            nouns.append(thing(at))
        if rng.random() < 0.75:
            nouns.append(objects.car(build.at(side * (road - 1.1), float(rng.uniform(5, 14)))))
    if len(build.boxes) < CAPACITY[0] - 3 and rng.random() < 0.7:
        nouns.append(objects.bench(build.at(front - 0.5, float(rng.uniform(3, 8)), -math.pi / 2)))
    if len(build.boxes) < CAPACITY[0] - 2 and rng.random() < 0.6:
        nouns.append(
            objects.billboard(build.at(-front + 1.0, float(rng.uniform(5, 12)), float(rng.uniform(-0.9, 0.2))))
        )
    return Composition(
        caption=f"a street with {_listing(nouns)}",
        ground=look(rng, str(rng.choice(["asphalt", "asphalt", "stone", "soil"])), 3.0),
        waves=flat_ground(),
        light=daylight(rng, haze_per_m=float(rng.uniform(0.001, 0.012))),
        size_m=1.0,
        stand=(-front + 0.4, -4.0, front - 0.4, 12.0),
        eye_m=(1.4, 2.4),
        pitch_rad=0.02,
    )


def compose_terrain(build: SceneBuilder) -> Composition:
    """Rolling country with trees, bushes, boulders, perhaps a cabin and a fence."""
    rng = build.rng
    waves = rolling_ground(rng)
    kind = str(rng.choice(["grass", "grass", "grass", "soil", "snow"]))
    nouns: list[str] = []

    def at(x: Length, z: Length, turn: Length = 0.0) -> SceneBuilder:
        turns = waves.wave[:, 0] * x + waves.wave[:, 1] * z
        waved = (waves.amplitude * (torch.sin(turns + waves.phase) - torch.sin(waves.phase))).sum()
        floor = float((1 + waves.rise * min((x * x + z * z) / 6400.0, 6.0)) * waved)
        return build.at(x, z, turn, floor)

    if rng.random() < 0.35:
        nouns.append(
            objects.cabin(at(float(rng.uniform(-8, 8)), float(rng.uniform(9, 16)), float(rng.uniform(-0.6, 0.6))))
        )
    if rng.random() < 0.4:
        nouns += [objects.fence(at(-6.0 + 4.2 * step, float(rng.uniform(5.5, 6.0)))) for step in range(3)]
    trees: tuple[Callable[[SceneBuilder], str], ...] = (
        (objects.conifer,)
        if rng.random() < 0.4
        else (objects.leafy_tree,)
        if rng.random() < 0.6
        else (objects.conifer, objects.leafy_tree)
    )
    spots = _spread(rng, 34, (-16.0, -10.0, 16.0, 26.0), 2.4)
    for x, z in spots:
        is_full = len(build.frusta) > CAPACITY[2] - 3 or len(build.ellipsoids) > CAPACITY[1] - 2
        if rng.random() < 0.5 and not is_full and math.hypot(x, z) > 3.5:
            nouns.append(trees[int(rng.integers(len(trees)))](at(x, z)))
        elif len(build.ellipsoids) < CAPACITY[1]:
            nouns.append((objects.bush, objects.boulder)[int(rng.integers(2))](at(x, z)))
    place = {"grass": "a meadow", "soil": "bare country", "snow": "a snow field"}[kind]
    return Composition(
        caption=f"{place} with {_listing(nouns)}",
        ground=look(rng, kind, float(rng.uniform(2.0, 4.0)), grime=0.6),
        waves=waves,
        light=daylight(rng, haze_per_m=float(rng.uniform(0.0005, 0.008))),
        size_m=1.5,
        stand=(-6.0, -6.0, 6.0, 6.0),
        eye_m=(1.3, 3.0),
        pitch_rad=0.05,
    )


def compose_tabletop(build: SceneBuilder) -> Composition:
    """Small things on a table close to the camera, before a wall."""
    rng, nouns = build.rng, []
    for x, z in _spread(rng, int(rng.integers(5, 11)), (-0.45, -0.1, 0.45, 0.6), 0.17):
        at = build.at(x, z, float(rng.uniform(0, math.pi)))
        kind = str(rng.choice(["fabric", "metal", "plaster", "wood", "tile", "picture", "stone"]))
        how = look(rng, kind, float(rng.uniform(0.12, 0.3)), gloss=float(rng.uniform(0, 0.8)))
        pick = int(rng.integers(5))
        size = float(rng.uniform(0.04, 0.085))
        if pick == 0:
            at.frustum((0, 0), size * 0.7, size, size * 1.8, 0, how)
            at.frustum((0, 0), size * 1.6, size * 1.9, 0.012, 0, how)
            nouns.append("a cup on a saucer")
        elif pick == 1:
            at.box((0, 0), (size * 3, size * 0.5, size * 2.2), 0, look(rng, "picture", is_fitted=True))
            at.box((0.01, 0), (size * 2.6, size * 0.45, size * 2), size * 0.5, look(rng, "picture", is_fitted=True))
            nouns.append("books")
        elif pick == 2:
            at.ellipsoid((0, 0), (size, size * float(rng.uniform(0.7, 1)), size), 0, how)
            nouns.append("fruit")
        elif pick == 3:
            at.frustum((0, 0), size * 0.7, size * 0.65, size * 3, 0, how)
            at.frustum((0, 0), size * 0.62, size * 0.2, size * 1.0, size * 3, how)
            nouns.append("a bottle")
        else:
            at.box((0, 0), (size * 2, size * float(rng.uniform(1, 3)), size * 1.6), 0, how)
            nouns.append("a box")
    wall = str(rng.choice(["plaster", "brick", "picture", "wood", "fabric", "tile"]))
    build.at(0, float(rng.uniform(0.8, 1.4))).box(
        (0, 0), (5.0, 3.0, 0.1), -0.5, look(rng, wall, float(rng.uniform(0.6, 1.2)))
    )
    if rng.random() < 0.7:
        where = (float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-1.2, -0.6)), float(rng.uniform(-0.5, 0.3)))
        light = lamplight(rng, where, reach_m=float(rng.uniform(0.7, 1.3)))
    else:
        light = daylight(rng, haze_per_m=0.0, indoors=0.2)
    top = look(
        rng,
        str(rng.choice(["wood", "wood", "fabric", "tile", "stone", "metal"])),
        float(rng.uniform(0.3, 0.7)),
        gloss=float(rng.uniform(0, 0.4)),
    )
    return Composition(
        caption=f"a table with {_listing(nouns)}",
        ground=top,
        waves=flat_ground(),
        light=light,
        size_m=0.2,
        stand=(-0.4, -0.75, 0.4, -0.3),
        eye_m=(0.15, 0.5),
        pitch_rad=0.4,
    )


COMPOSERS: dict[str, Callable[[SceneBuilder], Composition]] = {
    "room": compose_room,
    "street": compose_street,
    "terrain": compose_terrain,
    "tabletop": compose_tabletop,
}
SHARES = (0.36, 0.24, 0.28, 0.12)


def sample_scene(seed: int, split: str = "train", *, kind: str | None = None) -> Scene:
    """A scene that depends on its arguments alone.

    Args:
        seed: any number from 0; the same number gives different places in different splits.
        split: "train" or "heldout".
        kind: one of COMPOSERS, or None to draw one.

    Raises:
        ConfigError: an unknown split or a negative seed.
    """
    rng = np.random.Generator(np.random.PCG64(stream_seed(seed, split)))
    drawn = str(rng.choice(list(COMPOSERS), p=SHARES))
    kind = drawn if kind is None else kind
    build = SceneBuilder(rng)
    plan = COMPOSERS[kind](build)
    boxes, ellipsoids, frusta, surfaces = build.shapes(plan.ground)
    return Scene(
        seed=seed,
        split=split,
        kind=kind,
        caption=plan.caption,
        boxes=boxes,
        ellipsoids=ellipsoids,
        frusta=frusta,
        surfaces=surfaces,
        ground=plan.waves,
        light=plan.light,
        size_m=plan.size_m,
        stand=plan.stand,
        eye_m=plan.eye_m,
        pitch_rad=plan.pitch_rad,
    )
