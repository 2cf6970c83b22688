import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lyra_core.scene_geometry.terrain import build_terrain, merge_voxels


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.03 * x - 0.02 * (y - 4.0)


def ground(count: int = 40_000) -> np.ndarray:
    """Points of a gentle slope in front of a camera 1.5 high."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-3, 3, count), rng.uniform(1, 7, count)
    return np.stack([x, y, slope(x, y)], 1)


def test_heights_are_those_of_the_ground_at_their_places():
    terrain = build_terrain(ground(), 1.5, 6.0, 10)
    for x, y in ((-2.0, 2.0), (2.0, 2.0), (-2.0, 6.0), (1.3, 4.7)):
        assert terrain.height_at(x, y) == pytest.approx(slope(np.array(x), np.array(y)), abs=0.01)
    assert terrain.is_seen.all()
    assert not terrain.is_blocked.any()
    assert len(terrain.boxes) == 0
    columns = terrain.heights.shape[1]
    assert terrain.cell * columns == pytest.approx(6.0, abs=0.2)
    assert (terrain.x0, terrain.y0) == (pytest.approx(-2.925), pytest.approx(0.975))
    np.testing.assert_allclose(
        terrain.heights[5, :], slope(terrain.x0 + terrain.cell * np.arange(columns), terrain.y0 + 5 * terrain.cell),
        atol=0.012,
    )  # fmt: skip


def test_holes_are_filled_from_their_rims_and_stay_unseen():
    points = ground()
    inside = (np.abs(points[:, 0]) < 0.5) & (np.abs(points[:, 1] - 4.0) < 0.5)
    terrain = build_terrain(points[~inside], 1.5, 6.0, 10)
    assert 25 < int((~terrain.is_seen).sum()) < 64
    assert terrain.height_at(0.0, 4.0) == pytest.approx(0.0, abs=0.02)


def test_a_thing_on_the_ground_is_a_box_where_it_stands():
    rng = np.random.default_rng(1)
    thing = rng.uniform([0.9, 3.0, 0.0], [1.5, 3.6, 1.2], (6_000, 3))
    terrain = build_terrain(np.concatenate([ground(), thing]), 1.5, 6.0, 10)
    low = (terrain.boxes[:, :3] - terrain.boxes[:, 3:]).min(0)
    high = (terrain.boxes[:, :3] + terrain.boxes[:, 3:]).max(0)
    np.testing.assert_allclose(low[:2], [0.9, 3.0], atol=0.31)
    np.testing.assert_allclose(high, [1.5, 3.6, 1.2], atol=0.31)
    assert terrain.is_blocked.sum() * terrain.cell**2 < 1.5
    row, column = round((3.3 - terrain.y0) / terrain.cell), round((1.2 - terrain.x0) / terrain.cell)
    assert terrain.is_blocked[row, column]


def test_what_hangs_high_or_lies_far_is_left_out():
    rng = np.random.default_rng(2)
    roof = rng.uniform([-1, 3, 5.0], [1, 5, 6.0], (5_000, 3))
    far = rng.uniform([-50, 40, -0.05], [50, 60, 0.05], (5_000, 3))
    terrain = build_terrain(np.concatenate([ground(), roof, far]), 1.5, 6.0, 10)
    assert len(terrain.boxes) == 0
    assert terrain.heights.shape[0] < 60
    assert build_terrain(far, 1.5, 6.0, 10) is None
    assert build_terrain(roof, 1.5, 6.0, 10) is None


@given(arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)))
@settings(max_examples=60, deadline=None)
def test_boxes_fill_exactly_the_occupied_voxels(voxels):
    corner = np.array([1.0, -2.0, 0.5])
    boxes = merge_voxels(voxels, 0.5, corner)
    filled = np.zeros(voxels.shape, int)
    for box in boxes:
        low = np.round((box[:3] - box[3:] - corner) / 0.5).astype(int)
        high = np.round((box[:3] + box[3:] - corner) / 0.5).astype(int)
        filled[low[2] : high[2], low[1] : high[1], low[0] : high[0]] += 1
    np.testing.assert_array_equal(filled, voxels.astype(int))  # each once
    assert len(boxes) <= voxels.sum()
