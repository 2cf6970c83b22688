"""A plane is found where there is one, and believed only on the evidence of the gate."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.identity import rng_seed
from lyra_core.scene_geometry.floor import Floor, find_floor
from lyra_core.scene_geometry.views import SurfacePoints, surface_points

SEEDS = [1, 2, 3, 4, 5]
SAMPLES = Path(__file__).resolve().parents[2] / "golden" / "sample_surfaces.npz"
WITH_FLOOR = {"alpine_path", "mountain_meadow", "sunset_rocks"}


@given(st.floats(0.0, 12.0), st.floats(-180.0, 180.0), st.floats(0.02, 50.0))
@settings(max_examples=6, deadline=None)
def test_a_known_plane_is_found_at_any_scale(scenes, tilt, azimuth, height):
    up = scenes.up(tilt, azimuth)
    path = [[height * x for x in center] for center in scenes.path]
    points = surface_points(scenes.views([scenes.plane(up, height)], path, most=30 * height))
    floor = find_floor(points, SEEDS, 6.0)
    assert floor.doubts == ()
    assert float(np.array(floor.up) @ up) > np.cos(np.radians(0.2))
    assert floor.camera_height == pytest.approx(height, rel=0.01)
    assert floor.tilt_deg == pytest.approx(tilt, abs=0.2)
    assert floor.rmse < 0.01 * height
    assert 0.5 <= floor.confidence <= 1.0


def test_rough_ground_with_a_wall_and_things_on_it(scenes):
    up = scenes.up(5.0, 40.0)
    hits = [
        scenes.plane(up, 1.5),
        scenes.box(np.array([-1.5, 0.3, 4.0]), np.array([-0.8, 2.0, 5.0])),
        scenes.box(np.array([-9.0, -1.2, 9.0]), np.array([9.0, 9.0, 10.0])),
    ]
    clean = surface_points(scenes.views(hits, scenes.path))
    noise = np.random.default_rng(0).normal(0, 0.004, (len(clean), 1)) * clean.xyz
    floor = find_floor(SurfacePoints(xyz=clean.xyz + noise, normals=clean.normals, ranges=clean.ranges), SEEDS, 6.0)
    assert floor.doubts == ()
    assert float(np.array(floor.up) @ up) > np.cos(np.radians(1.0))
    assert floor.camera_height == pytest.approx(1.5, rel=0.03)
    assert 0.005 < floor.rmse < 0.06


def test_walls_and_nothing_are_no_floor(scenes):
    wall = scenes.box(np.array([-9.0, -9.0, 3.0]), np.array([9.0, 9.0, 4.0]))
    assert find_floor(surface_points(scenes.views([wall], scenes.path)), SEEDS, 6.0) is None
    assert find_floor(surface_points(scenes.views([wall], scenes.path, most=1.0)), SEEDS, 6.0) is None


def test_a_steep_slope_and_a_far_plain_are_not_trusted(scenes):
    steep = find_floor(
        surface_points(scenes.views([scenes.plane(scenes.up(28.0, -90.0), 1.5)], scenes.path)), SEEDS, 6.0
    )
    assert any("tilted by 28" in doubt for doubt in steep.doubts)
    far = find_floor(surface_points(scenes.views([scenes.plane(scenes.up(0.0, 0.0), 1.0)], [[0, 0, 0]])), SEEDS, 1.5)
    assert far.doubts == ("no floor was seen near the camera",)
    assert far.confidence == 0.0


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"inliers": 0.24}, "carries 24%"),
        ({"tilt_deg": 15.1}, "tilted by 15.1"),
        ({"spread_deg": 3.1}, "3.1 degrees apart"),
        ({"rmse": float("nan")}, "near the camera"),
    ],
)
def test_each_condition_of_the_gate_counts(changes, doubt):
    good = {"up": (0.0, -1.0, 0.0), "camera_height": 1.5, "inliers": 0.25, "tilt_deg": 15.0, "spread_deg": 3.0}
    good["rmse"] = 0.1
    assert Floor(**good).doubts == ()
    (found,) = Floor(**{**good, **changes}).doubts
    assert doubt in found


@pytest.mark.parametrize("world", ["0" * 32, "5" * 32, "f" * 32])
def test_three_of_nine_sample_photographs_have_a_floor(world):
    """Points on the surfaces of their worlds as `mini` made them (3,000 each), every world with draws of its own."""
    accepted = set()
    with np.load(SAMPLES) as samples:
        assert len(samples.files) == 9
        for name in samples.files:
            table = samples[name].astype(np.float64)
            normals = table[:, 3:6] / np.linalg.norm(table[:, 3:6], axis=1, keepdims=True)
            points = SurfacePoints(xyz=table[:, :3], normals=normals, ranges=table[:, 6])
            floor = find_floor(points, [rng_seed(world, "geometry", k) for k in range(5)], 6.0)
            if floor is not None and not floor.doubts:
                accepted.add(name)
                assert 1.0 < floor.camera_height < 1.75
    assert accepted == WITH_FLOOR


def test_equal_seeds_give_equal_floors(scenes):
    points = surface_points(scenes.views([scenes.plane(scenes.up(3.0, 10.0), 1.5)], scenes.path))
    assert find_floor(points, SEEDS, 6.0) == find_floor(points, SEEDS, 6.0)
    assert find_floor(points, SEEDS, 6.0) != find_floor(points, [6, 7, 8, 9, 10], 6.0)
