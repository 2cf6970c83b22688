"""Cameras as actions: axes, order and signs, and back."""

import math
import warnings

import pytest
import torch

from lyra_core.cosmos.actions import actions_to_poses, path_to_actions, warn_of_long_steps
from lyra_core.errors import CameraPathError, LyraWarning
from lyra_core.geometry.rotation import invert_rigid, rigid
from lyra_core.values import CameraPath

STILL = [0, 0, 0, 1, 0, 0, 0, 1, 0]


def cameras(rotation, centers):
    poses = invert_rigid(rigid(rotation, torch.as_tensor(centers, dtype=torch.float64)))
    intrinsics = torch.tensor([[300.0, 0, 160], [0, 300, 96], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(
        world_to_cam=poses, intrinsics=intrinsics.repeat(len(poses), 1, 1), image_height=192, image_width=320
    )


def yaw(degrees):
    """Rotations about the axis that points down; positive turns right."""
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64))
    turned = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    turned[:, 0, 0] = turned[:, 2, 2] = angle.cos()
    turned[:, 0, 2], turned[:, 2, 0] = angle.sin(), -angle.sin()
    return turned


def test_a_camera_at_rest():
    actions = path_to_actions(cameras(yaw([0, 0]), [[1, 2, 3], [1, 2, 3]]))
    assert actions.dtype == torch.float32
    assert actions.tolist() == [STILL]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_translations_are_those_of_the_first_camera(axis):
    centers = torch.zeros(3, 3)
    centers[:, axis] = torch.tensor([0.0, 0.5, 1.5])
    actions = path_to_actions(cameras(yaw([0, 0, 0]), centers))
    assert actions[:, axis].tolist() == [0.5, 1.0]
    assert actions[:, 3:].tolist() == [STILL[3:]] * 2


def test_translations_are_in_the_axes_of_the_turned_camera():
    ahead = path_to_actions(cameras(yaw([90, 90]), [[0, 0, 0], [0.5, 0, 0]]))  # it looks along the world's x
    assert ahead[0, :3].tolist() == pytest.approx([0.0, 0.0, 0.5], abs=1e-7)


def test_turning_left_and_right():
    left, right = (path_to_actions(cameras(yaw([0, a]), [[0, 0, 0]] * 2))[0] for a in (-10, 10))
    # The first column is where the camera's x axis points: after a turn to the left, forward.
    assert left[5] == pytest.approx(math.sin(math.radians(10)), abs=1e-6)
    assert right[5] == pytest.approx(-math.sin(math.radians(10)), abs=1e-6)
    assert left[6:].tolist() == [0, 1, 0]


def test_steps_are_relative_to_the_frame_before():
    turning = path_to_actions(cameras(yaw([0, 30, 60]), [[0, 0, 0]] * 3))
    assert torch.allclose(turning[0], turning[1], atol=1e-7)


def test_actions_integrate_back_to_the_path():
    generator = torch.Generator().manual_seed(3)
    angles = torch.rand(40, generator=generator, dtype=torch.float64).cumsum(0) * 4
    path = cameras(yaw(angles), torch.randn(40, 3, generator=generator, dtype=torch.float64).cumsum(0) * 0.1)
    relative = path.world_to_cam @ invert_rigid(path.world_to_cam[:1])
    assert torch.allclose(actions_to_poses(path_to_actions(path)), relative, atol=1e-5)


def test_gain_scales_translation_only_and_is_undone():
    path = cameras(yaw([0, 5, 9]), [[0, 0, 0], [1, 0, 1], [3, 0, 2]])
    plain, doubled = path_to_actions(path), path_to_actions(path, 2.0)
    assert torch.allclose(doubled[:, :3], 2 * plain[:, :3])
    assert torch.equal(doubled[:, 3:], plain[:, 3:])
    assert torch.allclose(actions_to_poses(doubled, 2.0), actions_to_poses(plain), atol=1e-6)


def test_predicted_actions_become_rotations():
    rough = torch.tensor([[0.1, 0.0, 0.2, 0.9, 0.1, 0.0, 0.0, 1.2, 0.1]])
    rotation = actions_to_poses(rough)[1, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("bad", [torch.zeros(2, 8), torch.full((2, 9), math.nan)])
def test_actions_that_are_none(bad):
    with pytest.raises((CameraPathError, TypeError), match=r"9 finite numbers|type"):
        actions_to_poses(bad)


def test_long_steps_are_named():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_long_steps(cameras(yaw([0, 1.9]), [[0, 0, 0], [0, 0, 1.2]]))
    with pytest.warns(LyraWarning, match=r"moves 1.50 m and turns 0.00 degrees to frame 2"):
        warn_of_long_steps(cameras(yaw([0, 0, 0]), [[0, 0, 0], [0, 0, 1], [0, 0, 2.5]]))
    with pytest.warns(LyraWarning, match=r"turns 3.00 degrees to frame 1"):
        warn_of_long_steps(cameras(yaw([0, 3]), [[0, 0, 0], [0, 0, 0]]))
    with pytest.warns(LyraWarning, match=r"moves 2.00 m"):
        warn_of_long_steps(cameras(yaw([0, 0]), [[0, 0, 0], [0, 0, 1]]), 2.0)
