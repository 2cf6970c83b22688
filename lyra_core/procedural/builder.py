"""Collects the shapes of a scene with their looks, and the objects people know: furniture, trees, cars, lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from lyra_core.procedural.primitives import Boxes, Ellipsoids, Frusta, Surfaces
from lyra_core.procedural.textures import KIND_INDEX

Length = float | int
Pair = tuple[Length, Length]
Triple = tuple[Length, Length, Length]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a shape looks.

    Attributes:
        kind: name of a texture kind.
        variant: which texture of it, 0 to 1.
        repeat_m: size of one repeat of the texture, metres.
        tint: multiplies the albedo.
        gloss: strength of the highlight.
        emission: light of its own.
        grime: strength of large-scale variation.
        is_fitted: one repeat fills each face (pictures, shelves of books).
    """

    kind: str
    variant: float
    repeat_m: Length = 2.0
    tint: Triple = (1.0, 1.0, 1.0)
    gloss: Length = 0.0
    emission: Length = 0.0
    grime: Length = 0.35
    is_fitted: bool = False


def look(rng: np.random.Generator, kind: str, repeat_m: Length = 2.0, **changes: Length | bool) -> Look:
    """A random look of a kind: any of its textures, a mild tint."""
    level = rng.uniform(0.8, 1.15)
    tint = tuple(float(level * value) for value in rng.uniform(0.88, 1.1, 3))
    fields = {"grime": float(rng.uniform(0.1, 0.5)), **changes}
    return Look(kind=kind, variant=float(rng.random()), repeat_m=repeat_m, tint=tint, **fields)  # type: ignore[arg-type]


@dataclass(slots=True)
class SceneBuilder:
    """Grows lists of shapes; `base` offsets let an object be placed and turned as a whole."""

    rng: np.random.Generator
    boxes: list[tuple[list[Length], Look]] = field(default_factory=list)
    ellipsoids: list[tuple[list[Length], Look]] = field(default_factory=list)
    frusta: list[tuple[list[Length], Look]] = field(default_factory=list)
    base: tuple[Length, Length, Length, Length] = (0.0, 0.0, 0.0, 0.0)

    def at(self, x: Length, z: Length, turn_rad: Length = 0.0, floor: Length = 0.0) -> SceneBuilder:
        """A view of this builder whose coordinates are those of an object: x right, z back, heights above `floor`."""
        return SceneBuilder(self.rng, self.boxes, self.ellipsoids, self.frusta, (x, z, turn_rad, floor))

    def _place(self, x: Length, z: Length) -> tuple[float, float]:
        base_x, base_z, turn, _ = self.base
        return base_x + math.cos(turn) * x - math.sin(turn) * z, base_z + math.sin(turn) * x + math.cos(turn) * z

    def box(self, middle: Pair, size: Triple, low: Length, how: Look) -> None:
        """A box of size (x, height, z) whose foot is `low` above the object's floor."""
        x, z = self._place(*middle)
        width, tall, deep = size
        center_y = -(self.base[3] + low + tall / 2)
        turn = self.base[2]
        self.boxes.append(([x, center_y, z, width / 2, tall / 2, deep / 2, math.cos(turn), math.sin(turn)], how))

    def ellipsoid(self, middle: Pair, radii: Triple, low: Length, how: Look, porosity: float = 0.0) -> None:
        """An ellipsoid whose lowest point is `low` above the object's floor."""
        x, z = self._place(*middle)
        turn = self.base[2]
        center_y = -(self.base[3] + low + radii[1])
        self.ellipsoids.append(([x, center_y, z, *radii, math.cos(turn), math.sin(turn), porosity], how))

    def frustum(self, middle: Pair, bottom: Length, top: Length, tall: Length, low: Length, how: Look) -> None:
        """An upright capped cone with radii `bottom` and `top`."""
        x, z = self._place(*middle)
        self.frusta.append(([x, -(self.base[3] + low), z, bottom, tall, top], how))

    def shapes(self, ground: Look) -> tuple[Boxes, Ellipsoids, Frusta, Surfaces]:
        """Everything collected, as tensors, and the surfaces with the ground last."""

        def table(rows: list[tuple[list[Length], Look]], width: int) -> torch.Tensor:
            return torch.tensor([values for values, _ in rows], dtype=torch.float32).reshape(-1, width)

        box, ball, cone = table(self.boxes, 8), table(self.ellipsoids, 9), table(self.frusta, 6)
        looks = [how for _, how in (*self.boxes, *self.ellipsoids, *self.frusta)]
        sizes = [*box[:, 3:6].tolist(), *ball[:, 3:6].tolist(), *[[0.5, 0.5, 0.5]] * len(cone)]
        # textures of walls start at the foot of each shape, so that windows and bricks stand on the ground
        feet = [*box[:, 4].tolist(), *ball[:, 4].tolist(), *[0.0] * len(cone)]
        scale, offset = [], []
        for how, (sx, sy, sz), foot in zip(looks, sizes, feet, strict=True):
            repeats = [0.5 / sx, 0.5 / sy, 0.5 / sz] if how.is_fitted else [1 / how.repeat_m] * 3
            scale.append(repeats)
            offset.append([0.5, 0.5, 0.5] if how.is_fitted else [0.25, -foot * repeats[1], 0.4])
        looks.append(ground)
        scale.append([1 / ground.repeat_m] * 3)
        offset.append([0.1, 0.0, 0.3])
        surfaces = Surfaces(
            kind=torch.tensor([KIND_INDEX[how.kind] for how in looks]),
            variant=torch.tensor([how.variant for how in looks], dtype=torch.float32),
            uv_scale=torch.tensor(scale, dtype=torch.float32),
            uv_offset=torch.tensor(offset, dtype=torch.float32),
            tint=torch.tensor([how.tint for how in looks], dtype=torch.float32),
            gloss=torch.tensor([how.gloss for how in looks], dtype=torch.float32),
            emission=torch.tensor([how.emission for how in looks], dtype=torch.float32),
            grime=torch.tensor([how.grime for how in looks], dtype=torch.float32),
        )
        return (
            Boxes(center=box[:, :3], half=box[:, 3:6], heading=box[:, 6:]),
            Ellipsoids(center=ball[:, :3], half=ball[:, 3:6], heading=ball[:, 6:8], porosity=ball[:, 8]),
            Frusta(center=cone[:, :3], half=cone[:, 3:]),
            surfaces,
        )
