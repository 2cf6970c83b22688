from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lyra_core.geometry import rotation


def random_quats(seed: int, count: int = 200) -> torch.Tensor:
    quats = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return quats / quats.norm(dim=-1, keepdim=True)


def test_golden_quaternions(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    matrices = rotation.quat_to_matrix(golden["gs.quat.in"])
    torch.testing.assert_close(matrices, golden["gs.quat.mat"], atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation.matrix_to_quat(matrices), golden["gs.quat.back"], atol=1e-6, rtol=0)


@given(st.integers(0, 10_000))
def test_quaternions_and_matrices_are_the_same_rotations(seed: int) -> None:
    quats = random_quats(seed)
    matrices = rotation.quat_to_matrix(quats)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(200, dtype=torch.float64))
    back = rotation.matrix_to_quat(matrices)
    assert bool((back[:, 0] >= 0).all())
    torch.testing.assert_close((back * quats).sum(-1).abs(), torch.ones(200, dtype=torch.float64))
    other = random_quats(seed + 1)
    product = rotation.quat_to_matrix(rotation.multiply_quats(quats, other))
    torch.testing.assert_close(product, matrices @ rotation.quat_to_matrix(other))


def test_half_turns_keep_their_axis() -> None:
    axes = torch.eye(3, dtype=torch.float64)
    matrices = 2 * axes[:, :, None] * axes[:, None, :] - torch.eye(3, dtype=torch.float64)
    quats = rotation.matrix_to_quat(matrices)
    torch.testing.assert_close(quats[:, 1:].abs(), axes)


def test_xyzw_is_wxyz_rolled() -> None:
    quats = random_quats(3)
    torch.testing.assert_close(rotation.quat_xyzw_to_matrix(quats[:, [1, 2, 3, 0]]), rotation.quat_to_matrix(quats))


@pytest.mark.parametrize("degrees", [1e-5, 0.01, 1.0, 90.0, 179.0])
def test_angles_small_and_large(degrees: float) -> None:
    half = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)) / 2
    turned = torch.stack([half.cos(), half.sin(), half * 0, half * 0])[None]
    angle = rotation.rotation_angle_deg(rotation.quat_to_matrix(turned))
    torch.testing.assert_close(angle, torch.tensor([degrees], dtype=torch.float64), rtol=1e-6, atol=0)


def test_nearest_rotation_never_mirrors() -> None:
    matrices = torch.randn(100, 3, 3, generator=torch.Generator().manual_seed(0))
    nearest = rotation.nearest_rotation(matrices)
    torch.testing.assert_close(torch.linalg.det(nearest), torch.ones(100))
    turned = rotation.quat_to_matrix(random_quats(1, 100))
    torch.testing.assert_close(rotation.nearest_rotation(3.0 * turned), turned)


def test_cameras_and_gaussians_turn_alike() -> None:
    quats = random_quats(9)
    matrices = rotation.quat_to_matrix(quats)
    torch.testing.assert_close(matrices, rotation.unit_quat_to_matrix(2.0 * quats))
    assert rotation.unit_quat_to_matrix(quats.float()).dtype == torch.float64
    single = rotation.quat_to_matrix(quats.float())
    assert single.dtype == torch.float32


def test_the_sign_of_a_quaternion_is_that_of_w_or_of_its_largest_component() -> None:
    matrices = rotation.quat_to_matrix(random_quats(300))
    first = rotation.matrix_to_quat(matrices)
    largest = rotation.matrix_to_quat(matrices, has_positive_w=False)
    assert (first[:, 0] >= 0).all()
    assert (largest.gather(1, largest.abs().argmax(1, keepdim=True)) > 0).all()
    assert torch.equal(first.abs(), largest.abs())
    assert not torch.equal(first, largest)


@pytest.mark.parametrize(("dtype", "wanted"), [(None, torch.float32), (torch.float64, torch.float64)])
def test_inverses_of_rigid_transforms(dtype, wanted) -> None:
    poses = rotation.rigid(rotation.unit_quat_to_matrix(random_quats(1, 50)), torch.randn(50, 3).double()).float()
    inverse = rotation.invert_rigid(poses, dtype)
    assert inverse.dtype == wanted
    torch.testing.assert_close(inverse.float() @ poses, torch.eye(4).expand(50, 4, 4), atol=1e-5, rtol=0)
