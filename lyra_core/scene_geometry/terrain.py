"""The ground as a map of heights, and what stands on it as boxes, from points in the ground frame.

Shape legend: n points, r rows (along y), c columns (along x), k boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from lyra_core.jit import jit

# In heights of the camera above the floor.
FLOOR_BAND = 0.15  # points within this of the plane are floor
OBSTACLE_LEAST = 0.12  # points this far above the map of heights are obstacles
OBSTACLE_MOST = 2.5  # what hangs higher is in nobody's way
VOXEL_CELLS = 2  # side of an obstacle's voxel
MIN_VOXEL_POINTS = 3
SMOOTHING_CELLS = 1.0
MEDIAN_CELLS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Terrain:
    """Ground and obstacles; lengths in units of the points they were made from.

    Attributes:
        heights: z at the centres of cells; row 0 is the least y, column 0 the least x. [r c] float64
        is_seen: cells in which the floor itself was seen; the others are filled in. [r c]
        is_blocked: cells with an obstacle above them. [r c]
        cell: side of a cell.
        x0, y0: centre of cell (0, 0).
        boxes: centre and half sizes of axis-aligned boxes: x y z, hx hy hz. [k 6] float64
    """

    heights: Float[np.ndarray, "r c"]
    is_seen: Bool[np.ndarray, "r c"]
    is_blocked: Bool[np.ndarray, "r c"]
    cell: float
    x0: float
    y0: float
    boxes: Float[np.ndarray, "k 6"]

    def height_at(self, x: float, y: float) -> float:
        """Height between the centres of cells, bilinear; beyond the map that of its rim."""
        rows, columns = self.heights.shape
        u = float(np.clip((x - self.x0) / self.cell, 0.0, columns - 1.0))
        v = float(np.clip((y - self.y0) / self.cell, 0.0, rows - 1.0))
        left, low = min(int(u), max(columns - 2, 0)), min(int(v), max(rows - 2, 0))
        right, high = min(left + 1, columns - 1), min(low + 1, rows - 1)
        a, b = u - left, v - low
        near = (1 - a) * self.heights[low, left] + a * self.heights[low, right]
        far = (1 - a) * self.heights[high, left] + a * self.heights[high, right]
        return float((1 - b) * near + b * far)


def build_terrain(xyz: Float[np.ndarray, "n 3"], camera_height: float, radius: float, cells: int) -> Terrain | None:
    """A map of the part of the ground that was seen.

    Args:
        xyz: points on surfaces, ground frame.
        camera_height: of the first camera above the origin, in the points' unit.
        radius: most distance from the origin, in camera heights.
        cells: in one camera height.

    Returns:
        None where no floor was seen within the radius.
    """
    cell = camera_height / cells
    near = (np.abs(xyz[:, :2]) < radius * camera_height).all(1) & (xyz[:, 2] < OBSTACLE_MOST * camera_height)
    xyz = xyz[near]
    on_floor = np.abs(xyz[:, 2]) < FLOOR_BAND * camera_height
    if not on_floor.any():
        return None
    floor = xyz[on_floor]
    low = np.floor(floor[:, :2].min(0) / cell)
    columns, rows = (np.floor(floor[:, :2].max(0) / cell) - low + 1).astype(int).tolist()
    if min(rows, columns) < 3:
        return None

    def cell_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = (np.floor(points[:, :2] / cell) - low).astype(int)
        inside = (at >= 0).all(1) & (at[:, 0] < columns) & (at[:, 1] < rows)
        return at[:, 1], at[:, 0], inside

    row, column, _ = cell_of(floor)
    heights, is_seen = _cell_medians(row * columns + column, floor[:, 2], rows * columns)
    is_seen = is_seen.reshape(rows, columns)
    heights = _smooth(_fill_nearest(heights.reshape(rows, columns), is_seen))
    row, column, inside = cell_of(xyz)
    above = inside.copy()
    above[inside] = xyz[inside, 2] - heights[row[inside], column[inside]] > OBSTACLE_LEAST * camera_height
    voxels = _voxels(row[above], column[above], xyz[above, 2], cell, (rows, columns), camera_height)
    is_blocked = np.repeat(np.repeat(voxels.any(0), VOXEL_CELLS, 0), VOXEL_CELLS, 1)[:rows, :columns]
    corner = np.array([low[0] * cell, low[1] * cell, 0.0])
    return Terrain(
        heights=heights,
        is_seen=is_seen,
        is_blocked=is_blocked,
        cell=cell,
        x0=float(corner[0] + cell / 2),
        y0=float(corner[1] + cell / 2),
        boxes=merge_voxels(voxels, VOXEL_CELLS * cell, corner),
    )


def merge_voxels(
    voxels: Bool[np.ndarray, "z y x"], side: float, corner: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "k 6"]:
    """Boxes that fill exactly the occupied voxels: each grows along x, then y, then z while all it meets is occupied.

    Args:
        voxels: occupied or not.
        side: of a voxel.
        corner: x y z of the outer corner of voxel (0, 0, 0).

    Returns:
        centre and half sizes of each box. [k 6]
    """
    spans = _greedy_boxes(voxels.copy())
    least, most = spans[:, [2, 1, 0]], spans[:, [5, 4, 3]]  # x y z
    return np.concatenate([corner + side * (least + most) / 2, side * (most - least) / 2], 1)


@jit()
def _greedy_boxes(left: np.ndarray) -> np.ndarray:
    """Index ranges (z0 y0 x0 z1 y1 x1) of boxes; `left` is emptied."""
    depth, height, width = left.shape
    boxes = np.empty((left.sum(), 6), np.float64)
    count = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not left[z, y, x]:
                    continue
                x1, y1, z1 = x + 1, y + 1, z + 1
                while x1 < width and left[z, y, x1]:
                    x1 += 1
                while y1 < height and left[z, y1, x:x1].all():
                    y1 += 1
                while z1 < depth and left[z1, y:y1, x:x1].all():
                    z1 += 1
                left[z:z1, y:y1, x:x1] = False
                boxes[count, 0], boxes[count, 1], boxes[count, 2] = z, y, x
                boxes[count, 3], boxes[count, 4], boxes[count, 5] = z1, y1, x1
                count += 1
    return boxes[:count]


def _cell_medians(cell: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Median of the values of each cell (the lower of two), and which cells have any."""
    order = np.lexsort((values, cell))
    sizes = np.bincount(cell, minlength=count)
    starts = np.cumsum(sizes) - sizes
    medians = np.zeros(count)
    held = sizes > 0
    medians[held] = values[order][starts[held] + (sizes[held] - 1) // 2]
    return medians, held


def _fill_nearest(heights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Each unknown cell takes the mean of its known neighbours, ring by ring outwards."""
    heights, known = heights.copy(), known.copy()
    while not known.all():
        padded, mask = np.pad(np.where(known, heights, 0.0), 1), np.pad(known.astype(float), 1)
        total, weight = np.zeros_like(heights), np.zeros_like(heights)
        for dy in range(3):
            for dx in range(3):
                total += padded[dy : dy + heights.shape[0], dx : dx + heights.shape[1]]
                weight += mask[dy : dy + heights.shape[0], dx : dx + heights.shape[1]]
        new = ~known & (weight > 0)
        heights[new] = total[new] / weight[new]
        known |= new
    return heights


def _smooth(heights: np.ndarray) -> np.ndarray:
    """A 5x5 median against single wrong cells, then a Gaussian."""
    reach = MEDIAN_CELLS
    padded = np.pad(heights, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
    median = np.median(windows, axis=(2, 3))
    offsets = np.arange(-3, 4)
    taps = np.exp(-(offsets**2) / (2 * SMOOTHING_CELLS**2))
    taps /= taps.sum()
    for axis in (0, 1):
        padded = np.pad(median, [(3, 3) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        median = sum(tap * padded.take(range(k, k + median.shape[axis]), axis) for k, tap in enumerate(taps))
    return median


def _voxels(
    row: np.ndarray, column: np.ndarray, z: np.ndarray, cell: float, shape: tuple[int, int], camera_height: float
) -> np.ndarray:
    """Occupied voxels above the ground, z upwards from -FLOOR_BAND. [z y x]"""
    side, bottom = VOXEL_CELLS * cell, -FLOOR_BAND * camera_height
    layers = max(1, int(np.ceil((OBSTACLE_MOST * camera_height - bottom) / side)))
    size = (layers, -(-shape[0] // VOXEL_CELLS), -(-shape[1] // VOXEL_CELLS))
    layer = np.clip(((z - bottom) / side).astype(int), 0, layers - 1)
    flat = np.ravel_multi_index((layer, row // VOXEL_CELLS, column // VOXEL_CELLS), size)
    return (np.bincount(flat, minlength=int(np.prod(size))) >= MIN_VOXEL_POINTS).reshape(size)
