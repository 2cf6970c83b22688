"""Where a robot stands free: the clearance of every cell of the map, and one place to begin.

Shape legend: r rows, c columns of the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from lyra_core.scene_geometry.terrain import Terrain

ROBOT_M = (0.4, 0.6)  # width and length
ROBOT_RADIUS_M = math.hypot(*ROBOT_M) / 2  # of the circle in which it can turn
MAX_SLOPE_DEG = 20.0
ENOUGH_CLEARANCE_M = 1.0  # more than this is no better: then the place nearest to the camera counts
DIRECTIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """A place to stand, in the ground frame.

    Attributes:
        x, y, z: on the ground, metres.
        yaw_rad: heading from the x axis towards the y axis; that of the longest free way straight ahead.
        clearance_m: distance to the nearest cell that is not free.
    """

    x: float
    y: float
    z: float
    yaw_rad: float
    clearance_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSpace:
    """Free cells of a terrain.

    Attributes:
        is_free: the floor was seen there, nothing stands on it and it is not steep. [r c]
        clearance_m: distance from a free cell's centre to the nearest cell that is not free; 0 for those. [r c]
        area_m2: of cells where the robot's circle fits.
        spawn: the best of them, or None.
    """

    is_free: Bool[np.ndarray, "r c"]
    clearance_m: Float[np.ndarray, "r c"]
    area_m2: float
    spawn: Spawn | None


def find_free_space(terrain: Terrain) -> FreeSpace:
    """Free space of a terrain in metres."""
    is_free = terrain.is_seen & ~terrain.is_blocked & ~_is_steep(terrain)
    clearance = terrain.cell * distance_to_blocked(is_free)
    fits = clearance >= ROBOT_RADIUS_M
    area = float(fits.sum()) * terrain.cell**2
    return FreeSpace(is_free=is_free, clearance_m=clearance, area_m2=area, spawn=_spawn(terrain, clearance, is_free))


def distance_to_blocked(is_free: Bool[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
    """Distance from each cell's centre to the nearest centre of a cell that is not free, in cells.

    The world beyond the map is not free. Exact, in two passes (Felzenszwalb and Huttenlocher 2012, by broadcasting: the
    map is small).
    """
    free = np.pad(is_free, 1)
    rows, columns = free.shape
    across = np.abs(np.arange(columns)[:, None] - np.arange(columns))[None]  # [1 c c]
    in_row = np.where(free[:, None, :], np.inf, across).min(2)
    down = (np.arange(rows)[:, None] - np.arange(rows)) ** 2
    squared = np.stack([(down + column[None] ** 2).min(1) for column in in_row.T], 1)
    return np.sqrt(squared)[1:-1, 1:-1]


def _is_steep(terrain: Terrain) -> np.ndarray:
    slope_y, slope_x = np.gradient(terrain.heights, terrain.cell)
    return np.hypot(slope_x, slope_y) > math.tan(math.radians(MAX_SLOPE_DEG))


def _spawn(terrain: Terrain, clearance: np.ndarray, is_free: np.ndarray) -> Spawn | None:
    fits = clearance >= ROBOT_RADIUS_M
    if not fits.any():
        return None
    score = np.where(fits, np.minimum(clearance, ENOUGH_CLEARANCE_M), -np.inf)
    rows, columns = np.nonzero(score == score.max())
    x, y = terrain.x0 + columns * terrain.cell, terrain.y0 + rows * terrain.cell
    nearest = int(np.hypot(x, y).argmin())
    row, column = int(rows[nearest]), int(columns[nearest])
    return Spawn(
        x=float(x[nearest]),
        y=float(y[nearest]),
        z=terrain.height_at(float(x[nearest]), float(y[nearest])),
        yaw_rad=_freest_heading(is_free, row, column),
        clearance_m=float(clearance[row, column]),
    )


def _freest_heading(is_free: np.ndarray, row: int, column: int) -> float:
    """Of some directions the one with the longest free way, in steps of a cell; of equal ones the nearest to y."""
    reach = []
    headings = [
        math.pi / 2 + sign * k * 2 * math.pi / DIRECTIONS for k in range(DIRECTIONS // 2 + 1) for sign in (1, -1)
    ]
    for heading in headings:
        steps = np.arange(1, sum(is_free.shape))
        r = np.round(row + np.sin(heading) * steps).astype(int)
        c = np.round(column + np.cos(heading) * steps).astype(int)
        inside = (r >= 0) & (c >= 0) & (r < is_free.shape[0]) & (c < is_free.shape[1])
        free = inside.copy()
        free[inside] = is_free[r[inside], c[inside]]
        reach.append(int(np.argmin(free)) if not free.all() else len(free))
    return headings[int(np.argmax(reach))]
