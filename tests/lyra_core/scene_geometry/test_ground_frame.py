import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.scene_geometry.floor import Floor
from lyra_core.scene_geometry.ground_frame import GroundFrame


def floor(up, height: float) -> Floor:
    return Floor(
        up=tuple(float(v) for v in up), camera_height=height, inliers=0.5, tilt_deg=1.0, spread_deg=0.1, rmse=0.01
    )


@given(st.floats(0.0, 40.0), st.floats(-180.0, 180.0), st.floats(0.1, 9.0), st.floats(0.3, 3.0))
@settings(max_examples=25, deadline=None)
def test_the_camera_stands_above_the_origin_and_looks_along_y(scenes, tilt, azimuth, height, scale):
    up = scenes.up(tilt, azimuth)
    frame = GroundFrame.on(floor(up, height), scale)
    assert np.linalg.det(frame.rotation) == pytest.approx(1.0)
    camera, ahead = frame.to_ground(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(camera, [0.0, 0.0, scale * height], atol=1e-9)
    assert ahead[0] == pytest.approx(0.0, abs=1e-9)
    assert ahead[1] > 0
    points = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_allclose(frame.to_world(frame.to_ground(points)), points, atol=1e-9)
    by_matrix = np.concatenate([points, np.ones((20, 1))], 1) @ frame.matrix.T
    np.testing.assert_allclose(by_matrix[:, :3], frame.to_ground(points), atol=1e-9)


def test_a_camera_sees_the_same_picture_in_the_ground_frame(scenes):
    frame = GroundFrame.on(floor(scenes.up(9.0, 30.0), 1.4), 1.2)
    pose = np.eye(4)
    pose[:3, 3] = [0.3, -0.2, 0.5]
    points = np.random.default_rng(1).normal([0.0, 0.0, 6.0], 1.0, (20, 3))
    local = points @ pose[:3, :3].T + pose[:3, 3]
    moved = frame.camera(pose)
    found = frame.to_ground(points) @ moved[:3, :3].T + moved[:3, 3]
    np.testing.assert_allclose(found, 1.2 * local, atol=1e-9)


def test_without_a_floor_up_is_the_cameras():
    frame = GroundFrame.on(None, 1.0)
    np.testing.assert_allclose(frame.to_ground(np.array([[1.0, 2.0, 3.0]])), [[1.0, 3.0, -2.0]])
