import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import (
    compose,
    intrinsics_from_hfov,
    look_at,
    project,
    rotation_about_axis,
    slerp,
    slerp_rotations,
    unproject,
)
from lyra_core.geometry.rotation import invert_rigid, matrix_to_quat, rigid, unit_quat_to_matrix

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=40, deadline=None)


def random_poses(seed: int, count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = unit_quat_to_matrix(torch.randn(count, 4, generator=generator, dtype=torch.float64))
    return rigid(rotation, torch.randn(count, 3, generator=generator, dtype=torch.float64))


@given(seeds)
@quick
def test_inverse_composes_to_identity(seed):
    poses = random_poses(seed)
    eye = torch.eye(4, dtype=torch.float64).expand(8, 4, 4)
    torch.testing.assert_close(compose(invert_rigid(poses), poses), eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(invert_rigid(poses), torch.linalg.inv(poses), rtol=0, atol=1e-12)


@given(seeds)
@quick
def test_quaternions_and_matrices_are_inverse(seed):
    rotation = random_poses(seed)[:, :3, :3]
    quats = matrix_to_quat(rotation)
    assert (quats[:, 0] >= 0).all()
    torch.testing.assert_close(unit_quat_to_matrix(quats), rotation, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("angle", [0.0, 1e-9, math.pi / 2, math.pi - 1e-9, math.pi])
def test_matrix_to_quat_at_half_turns(axis, angle):
    rotation = rotation_about_axis(axis, torch.tensor(angle, dtype=torch.float64))
    torch.testing.assert_close(unit_quat_to_matrix(matrix_to_quat(rotation)), rotation, rtol=0, atol=1e-12)


@given(seeds, st.floats(0, 1))
@quick
def test_slerp_is_on_the_great_arc(seed, t):
    rotation = random_poses(seed, 2)[:, :3, :3]
    start, end = matrix_to_quat(rotation)
    middle = slerp(start, end, torch.tensor(t))
    whole = 2 * math.acos(min(1.0, abs(float(start @ end))))
    to_start = 2 * math.acos(min(1.0, abs(float(start @ middle))))
    assert abs(to_start - t * whole) < 1e-6
    matrix = slerp_rotations(rotation[0], rotation[1], torch.tensor(t))
    torch.testing.assert_close(matrix, unit_quat_to_matrix(middle), rtol=0, atol=1e-12)


def test_slerp_of_nearly_equal_rotations_keeps_its_digits():
    angle = 1e-7
    ends = matrix_to_quat(rotation_about_axis((0.0, 1.0, 0.0), torch.tensor([0.0, angle])))
    middle = slerp(ends[0], ends[1], torch.tensor(0.5))
    assert abs(float(middle[2]) - angle / 4) < 1e-15


@given(seeds)
@quick
def test_unproject_then_project_gives_pixel_centers(seed):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(5, 7, generator=generator, dtype=torch.float64) * 9 + 0.5
    pose = random_poses(seed, 1)[0]
    intrinsics = intrinsics_from_hfov(60.0, 5, 7)
    pixels, z = project(unproject(depth, pose, intrinsics), pose, intrinsics)
    torch.testing.assert_close(z, depth, rtol=0, atol=1e-10)
    assert torch.allclose(pixels[2, 3], torch.tensor([3.5, 2.5], dtype=torch.float64), atol=1e-9)
    assert torch.allclose(pixels[0, 0], torch.tensor([0.5, 0.5], dtype=torch.float64), atol=1e-9)


@given(seeds)
@quick
def test_look_at_puts_the_target_on_the_axis_and_keeps_upright(seed):
    generator = torch.Generator().manual_seed(seed)
    position, target = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    pose = look_at(position, target)
    seen = pose[:3, :3] @ target + pose[:3, 3]
    distance = float((target - position).norm())
    assert torch.allclose(seen, torch.tensor([0, 0, distance], dtype=torch.float64), atol=1e-9)
    assert abs(float(pose[0, 1])) < 1e-9  # the image's x axis is level
    assert float(pose[1, 1]) >= 0  # the world's down is down in the image
    assert torch.linalg.det(pose[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("y", [1.0, -1.0])
def test_look_at_straight_down_is_rigid(y):
    pose = look_at(torch.zeros(3), torch.tensor([0.0, y, 0.0]))
    assert torch.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert pose[0, 0] == pytest.approx(1)


def test_look_at_itself_is_refused():
    with pytest.raises(CameraPathError, match="own position"):
        look_at(torch.ones(3), torch.ones(3))


@given(st.floats(5, 150))
@quick
def test_field_of_view_round_trip(hfov):
    focal_px = float(intrinsics_from_hfov(hfov, 480, 832)[0, 0])
    assert 2 * math.degrees(math.atan(832 / 2 / focal_px)) == pytest.approx(hfov)


@pytest.mark.parametrize("hfov", [0.0, 180.0, -3.0, math.nan])
def test_impossible_fields_of_view_are_refused(hfov):
    with pytest.raises(CameraPathError, match="between 0 and 180"):
        intrinsics_from_hfov(hfov, 480, 832)


def test_points_behind_have_negative_depth():
    pixels, depth = project(
        torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 0.0]]),
        torch.eye(4),
        intrinsics_from_hfov(60.0, 5, 7),
    )
    assert depth.tolist() == [-2.0, 0.0]
    assert torch.isfinite(pixels).all()
