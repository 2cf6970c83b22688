"""Worlds for MuJoCo: a heightfield as the ground, boxes as obstacles, walls around, in one XML file.

Two habits of MuJoCo fail silently (both measured with release 4.0.0). The text of `elevation` begins with the row of
greatest y, so rows are flipped here. And contacts of three dimensions, the default, know no rolling friction: a ball
rolls off every real floor, so geoms ask for six. MuJoCo has no floor either beyond the map: walls keep things on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from jaxtyping import Float

from lyra_core.errors import FormatError
from lyra_core.replacing import replacing

BASE_M = 1.0  # thickness below the lowest point
LEAST_RELIEF_M = 1e-3  # MuJoCo refuses heightfields of no height
WALL_HEIGHT_M, WALL_HALF_M = 2.0, 0.1
FRICTION = "1 0.02 0.02"  # sliding; torsional and rolling, in metres


@dataclass(frozen=True, slots=True, kw_only=True)
class MujocoWorld:
    """What a simulation stands on; ground frame (x right, y forward, z up), metres.

    Attributes:
        heights: z at points of a regular grid; row 0 is the least y, column 0 the least x. [r c]
        spacing: between points.
        x0, y0: of point (0, 0).
        boxes: centre and half sizes of axis-aligned obstacles: x y z, hx hy hz. [k 6]
        spawn: x, y, z on the ground and heading (from x towards y) of a place to stand.
        camera: world_to_cam of the seed's OpenCV camera in the ground frame. [4 4]
        fovy_deg: its vertical field of view.
    """

    heights: Float[np.ndarray, "r c"]
    spacing: float
    x0: float
    y0: float
    boxes: Float[np.ndarray, "k 6"]
    spawn: tuple[float, float, float, float]
    camera: Float[np.ndarray, "4 4"]
    fovy_deg: float


def write_mjcf(world: MujocoWorld, file: str | Path, name: str = "world") -> None:
    """Write a complete model that MuJoCo loads by itself.

    It has a geom `floor`, geoms `obstacle_0...` and `wall_0...`, a site `spawn` (x along the heading, z up) and a
    camera `seed`.

    Raises:
        FormatError: fewer than two rows or columns, or numbers that are not finite.
    """
    rows, columns = world.heights.shape
    if min(rows, columns) < 2:
        raise FormatError(f"a heightfield needs at least 2 rows and columns, found {rows} and {columns}")
    numbers = (world.heights, world.boxes, world.camera, np.array([world.spacing, world.x0, world.y0, *world.spawn]))
    if not all(np.isfinite(array).all() for array in numbers):
        raise FormatError("a MuJoCo world must be of finite numbers; look at its depth")
    root = ET.Element("mujoco", model=name)
    ET.SubElement(root, "compiler", angle="radian")
    ET.SubElement(root, "option", timestep="0.004", integrator="implicitfast")
    half = np.array([(columns - 1) * world.spacing / 2, (rows - 1) * world.spacing / 2])
    center = np.array([world.x0, world.y0]) + half
    low, relief = float(world.heights.min()), float(np.ptp(world.heights))
    size = max(relief, LEAST_RELIEF_M)
    ET.SubElement(
        root, "statistic", center=_text(center[0], center[1], low + relief / 2), extent=_text(float(half.max()))
    )
    default = ET.SubElement(root, "default")
    ET.SubElement(default, "geom", condim="6", friction=FRICTION)
    asset = ET.SubElement(root, "asset")
    elevation = np.flipud((world.heights - low) / size)
    ET.SubElement(
        asset,
        "hfield",
        name="floor",
        nrow=str(rows),
        ncol=str(columns),
        size=_text(half[0], half[1], size, BASE_M),
        elevation="\n".join(" ".join(f"{value:.4g}" for value in row) for row in elevation),
    )
    body = ET.SubElement(root, "worldbody")
    ET.SubElement(body, "light", pos=_text(center[0], center[1], low + 20.0), dir="0 0.3 -1")
    ET.SubElement(
        body,
        "geom",
        name="floor",
        type="hfield",
        hfield="floor",
        pos=_text(center[0], center[1], low),
        rgba="0.45 0.42 0.36 1",
    )
    for number, box in enumerate(world.boxes):
        _box(body, f"obstacle_{number}", box, "0.6 0.5 0.4 1")
    for number, box in enumerate(_walls(center, half, low, relief)):
        _box(body, f"wall_{number}", box, "0.5 0.5 0.6 0.2")
    x, y, z, heading = world.spawn
    ET.SubElement(body, "site", name="spawn", pos=_text(x, y, z), euler=_text(0.0, 0.0, heading), size="0.05")
    ET.SubElement(body, "camera", {"name": "seed", "fovy": _text(world.fovy_deg), **_pose(world.camera)})
    ET.indent(root)
    with replacing(file) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8")


def _walls(center: np.ndarray, half: np.ndarray, low: float, relief: float) -> list[np.ndarray]:
    """Four boxes around the map, from below its lowest point to above its highest."""
    tall = (relief + WALL_HEIGHT_M + BASE_M) / 2
    z = low - BASE_M + tall
    (x, y), (hx, hy), thick = center, half, WALL_HALF_M
    return [
        np.array([x - hx - thick, y, z, thick, hy + 2 * thick, tall]),
        np.array([x + hx + thick, y, z, thick, hy + 2 * thick, tall]),
        np.array([x, y - hy - thick, z, hx, thick, tall]),
        np.array([x, y + hy + thick, z, hx, thick, tall]),
    ]


def _box(body: ET.Element, name: str, box: np.ndarray, rgba: str) -> None:
    ET.SubElement(body, "geom", name=name, type="box", pos=_text(*box[:3]), size=_text(*box[3:]), rgba=rgba)


def _pose(world_to_cam: np.ndarray) -> dict[str, str]:
    """Place of an OpenCV camera as MuJoCo wants it: x right, y up, looking along -z."""
    rotation = world_to_cam[:3, :3]
    center = -rotation.T @ world_to_cam[:3, 3]
    return {"pos": _text(*center), "xyaxes": _text(*rotation[0], *-rotation[1])}


def _text(*values: float) -> str:
    return " ".join(f"{float(value):.9g}" for value in values)
