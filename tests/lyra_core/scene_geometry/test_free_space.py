import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lyra_core.scene_geometry.free_space import ROBOT_RADIUS_M, distance_to_blocked, find_free_space
from lyra_core.scene_geometry.terrain import Terrain


def terrain(seen: np.ndarray, blocked: np.ndarray | None = None, heights: np.ndarray | None = None) -> Terrain:
    return Terrain(
        heights=np.zeros(seen.shape) if heights is None else heights,
        is_seen=seen,
        is_blocked=np.zeros_like(seen) if blocked is None else blocked,
        cell=0.15,
        x0=-1.0,
        y0=1.0,
        boxes=np.zeros((0, 6)),
    )


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=60, deadline=None)
def test_clearance_is_the_distance_to_the_nearest_blocked_cell(is_free):
    padded = np.pad(is_free, 1)
    blocked = np.argwhere(~padded) - 1
    at = np.argwhere(np.ones_like(is_free))
    wanted = np.sqrt(((at[:, None] - blocked[None]) ** 2).sum(-1)).min(1).reshape(is_free.shape)
    np.testing.assert_allclose(distance_to_blocked(is_free), wanted)


def test_a_robot_stands_as_far_from_things_as_it_needs_and_near_the_camera():
    blocked = np.zeros((40, 30), bool)
    blocked[20, 10] = True
    space = find_free_space(terrain(np.ones((40, 30), bool), blocked))
    spawn = space.spawn
    thing = np.array([-1.0 + 10 * 0.15, 1.0 + 20 * 0.15])
    assert np.hypot(*(np.array([spawn.x, spawn.y]) - thing)) >= spawn.clearance_m - 1e-9 > ROBOT_RADIUS_M
    assert spawn.clearance_m >= 1.0
    better = space.clearance_m >= 1.0
    rows, columns = np.nonzero(better)
    assert np.hypot(spawn.x, spawn.y) == pytest.approx(np.hypot(-1 + columns * 0.15, 1 + rows * 0.15).min())
    assert space.area_m2 == pytest.approx((space.clearance_m >= ROBOT_RADIUS_M).sum() * 0.15**2)


def test_unseen_and_steep_ground_is_not_free():
    seen = np.ones((20, 20), bool)
    seen[:, :10] = False
    assert not find_free_space(terrain(seen)).is_free[:, :10].any()
    steep = np.tile(np.arange(20) * 0.15 * math.tan(math.radians(25)), (20, 1))
    assert find_free_space(terrain(np.ones((20, 20), bool), heights=steep)).spawn is None
    gentle = np.tile(np.arange(20) * 0.15 * math.tan(math.radians(10)), (20, 1))
    spawn = find_free_space(terrain(np.ones((20, 20), bool), heights=gentle)).spawn
    assert spawn.z == pytest.approx((spawn.x + 1.0) * math.tan(math.radians(10)))


def test_a_corridor_is_left_along_its_length_and_a_nook_is_too_narrow():
    corridor = np.zeros((40, 20), bool)
    corridor[:, 6:14] = True
    spawn = find_free_space(terrain(corridor)).spawn
    assert abs(math.sin(spawn.yaw_rad)) == pytest.approx(1.0)
    nook = np.zeros((40, 20), bool)
    nook[:, 9:12] = True
    assert find_free_space(terrain(nook)).spawn is None
