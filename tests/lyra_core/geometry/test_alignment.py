from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lyra_core.errors import CameraPathError, DepthError, ReconstructionError
from lyra_core.geometry import alignment
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.rotation import quat_to_matrix, rotation_angle_deg


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def known_similarity(seed: int = 0) -> Similarity:
    quat = torch.randn(4, generator=generator(seed), dtype=torch.float64)
    return Similarity(
        scale=1.7,
        rotation=quat_to_matrix(quat),
        translation=torch.tensor([0.3, -2.0, 1.1], dtype=torch.float64),
    )


def path(kind: str, count: int = 12, seed: int = 1) -> Tensor:
    """World-to-camera poses with varied orientations; centres static, on a line, or on a curve."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    offsets = {
        "static": torch.zeros(count, 3, dtype=torch.float64),
        "collinear": t[:, None] * torch.tensor([1.0, 0.2, 2.0], dtype=torch.float64),
        "general": torch.stack([t, (3 * t).sin(), t**2], dim=-1),
    }[kind]
    quats = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64) + 0.1 * torch.randn(
        count, 4, generator=generator(seed), dtype=torch.float64
    )
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = quat_to_matrix(quats).mT
    poses[:, :3, 3] = -(poses[:, :3, :3] @ (offsets + 0.5)[..., None])[..., 0]
    return poses


def assert_same(found: Similarity, wanted: Similarity, degrees: float, relative: float) -> None:
    turn = rotation_angle_deg(found.rotation @ wanted.rotation.mT)
    assert float(turn) < degrees
    assert found.scale == pytest.approx(wanted.scale, rel=relative)


def test_golden_weighted_similarity(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    fit = alignment.fit_similarity(golden["gs.sim3.src"], golden["gs.sim3.dst"], golden["gs.sim3.w"])
    assert fit.scale == pytest.approx(float(golden["gs.sim3.s"]), rel=1e-6)
    torch.testing.assert_close(fit.rotation.float(), golden["gs.sim3.r"], atol=1e-6, rtol=0)
    torch.testing.assert_close(fit.translation.float(), golden["gs.sim3.t"], atol=1e-6, rtol=0)


def test_golden_joint_alignment(golden_dir: Path) -> None:
    # The recorded fit used noisy points that were not recorded; the centres alone agree to that
    # noise. Its orientations do not follow the centres' similarity, so align_cameras has no part in
    # it.
    golden = load_file(golden_dir / "trajectory_gs.safetensors")
    source, target = golden["gs.joint.src_w2c"], golden["gs.joint.dst_w2c"]
    wanted = Similarity(
        scale=float(golden["gs.joint.s"]),
        rotation=golden["gs.joint.r"].double(),
        translation=golden["gs.joint.t"].double(),
    )
    centers = [alignment.camera_centers(x.double()) for x in (source, target)]
    exact = alignment.fit_similarity(*centers)
    assert_same(exact, wanted, degrees=0.05, relative=1e-3)
    torch.testing.assert_close(exact.translation, wanted.translation, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["general", "collinear"])
@pytest.mark.parametrize("count", [2, 3, 12])
def test_cameras_alone_find_the_similarity(kind: str, count: int) -> None:
    wanted, cameras = known_similarity(), path(kind, count)
    found = alignment.align_cameras(cameras, wanted.apply_to_cameras(cameras))
    assert_same(found.similarity, wanted, degrees=1e-4, relative=1e-9)
    torch.testing.assert_close(found.similarity.translation, wanted.translation)
    assert found.motion == ("collinear" if count == 2 else kind)


def test_straight_path_with_noise_keeps_its_roll() -> None:
    wanted, cameras = known_similarity(), path("collinear", 40)
    rolls = []
    for seed in range(8):  # how far one draw of noise rolls the naive fit depends on the machine's linear algebra
        target = wanted.apply_to_cameras(cameras)
        target[:, :3, 3] += 0.01 * torch.randn(40, 3, generator=generator(seed), dtype=torch.float64)
        assert_same(alignment.align_cameras(cameras, target).similarity, wanted, degrees=0.5, relative=0.02)
        centers = [alignment.camera_centers(x) for x in (cameras, target)]
        by_centers_alone = alignment.fit_similarity(*centers)
        rolls.append(float(rotation_angle_deg(by_centers_alone.rotation @ wanted.rotation.mT)))
    assert max(rolls) > 5.0


def test_static_cameras_give_rotation_and_say_that_scale_is_unknown() -> None:
    wanted, cameras = known_similarity(), path("static")
    found = alignment.align_cameras(cameras, wanted.apply_to_cameras(cameras))
    assert found.motion == "static"
    assert found.similarity.scale == 1.0
    assert_same(found.similarity, Similarity(**{**fields(wanted), "scale": 1.0}), 1e-4, 1e-9)


def fields(similarity: Similarity) -> dict[str, object]:
    return {name: getattr(similarity, name) for name in ("scale", "rotation", "translation")}


def test_a_fifth_of_wild_cameras_is_left_out() -> None:
    wanted, cameras = known_similarity(), path("general", 30)
    target = wanted.apply_to_cameras(cameras)
    target[::6, :3, 3] += 3.0
    found = alignment.align_cameras(cameras, target).similarity
    assert_same(found, wanted, degrees=0.1, relative=1e-3)


def test_similarities_compose_and_invert() -> None:
    a, b = known_similarity(1), known_similarity(2)
    points = torch.randn(10, 3, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(a.after(b).apply(points), a.apply(b.apply(points)))
    torch.testing.assert_close(a.inverse().apply(a.apply(points)), points)
    cameras = path("general")
    seen = (cameras[:, :3, :3] @ points.mT) + cameras[:, :3, 3:]
    moved = a.apply_to_cameras(cameras)
    seen_after = (moved[:, :3, :3] @ a.apply(points).mT) + moved[:, :3, 3:]
    torch.testing.assert_close(seen_after, a.scale * seen)


def test_residual_ignores_frame_and_scale_and_measures_the_rest() -> None:
    wanted, cameras = known_similarity(), path("general", 20)
    moved = wanted.apply_to_cameras(cameras)
    assert alignment.pose_residual(cameras, moved) == pytest.approx((0.0, 0.0), abs=1e-5)
    angle = torch.deg2rad(torch.tensor(3.0, dtype=torch.float64))
    turned = cameras.clone()
    spin = torch.eye(3, dtype=torch.float64)
    spin[0, 0] = spin[1, 1] = angle.cos()
    spin[0, 1], spin[1, 0] = -angle.sin(), angle.sin()
    signs = torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)
    for i in range(20):
        turned[i, :3] = (spin if signs[i] > 0 else spin.mT) @ turned[i, :3]
    rotation_deg, percent = alignment.pose_residual(cameras, turned)
    assert rotation_deg == pytest.approx(3.0, abs=0.1)
    assert percent < 0.1
    astray = cameras.clone()
    astray[:, :3, 3] += 0.05 * torch.randn(20, 3, generator=generator(0), dtype=torch.float64)
    rotation_deg, percent = alignment.pose_residual(cameras, astray)
    assert rotation_deg < 2.0
    assert 0.5 < percent < 6.0
    assert alignment.pose_residual(path("static"), cameras[:12])[1] == 0.0


def test_scale_from_overlap_is_a_weighted_median() -> None:
    rng = generator(5)
    depth = 1.0 + 5.0 * torch.rand(40, 50, generator=rng)
    reference = 2.5 * depth * (1 + 0.05 * torch.randn(40, 50, generator=rng))
    reference[:10] = 0.0
    reference[10:14] = 100.0
    weights = torch.ones(40, 50)
    weights[10:14] = 0.01
    depth[30, 3] = torch.nan
    assert alignment.scale_from_overlap(depth, reference, weights) == pytest.approx(2.5, rel=0.01)
    with pytest.raises(DepthError, match="64 pixels known to both"):
        alignment.scale_from_overlap(depth, torch.zeros(40, 50), weights)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("q", [0.0, 0.3, 0.98, 1.0])
def test_quantile_is_that_of_numpy(size: int, q: float) -> None:
    values = torch.randn(size, generator=generator(size), dtype=torch.float64)
    assert float(alignment.quantile(values, q)) == pytest.approx(np.quantile(values.numpy(), q))


def test_weighted_median_with_equal_weights() -> None:
    values = torch.tensor([5.0, 1.0, 3.0])
    assert float(alignment.weighted_median(values, torch.ones(3))) == 3.0
    assert float(alignment.weighted_median(values, torch.tensor([9.0, 1.0, 1.0]))) == 5.0


def test_bad_input_is_named() -> None:
    points = torch.randn(5, 3, generator=generator(0))
    with pytest.raises(ReconstructionError, match="3 weighted pairs"):
        alignment.fit_similarity(points[:2], points[:2])
    with pytest.raises(ReconstructionError, match="finite"):
        alignment.fit_similarity(points, points * torch.nan)
    with pytest.raises(ReconstructionError, match="one place"):
        alignment.fit_similarity(points[:1].expand(5, 3), points)
    cameras = path("general")
    with pytest.raises(CameraPathError, match="one length"):
        alignment.align_cameras(cameras, cameras[:3])
    with pytest.raises(CameraPathError, match="finite"):
        alignment.align_cameras(cameras, cameras * torch.nan)
