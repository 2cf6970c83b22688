"""Predictions made from a known scene: a tilted plane seen by known cameras, in another frame and
unit.
"""

import pytest
import torch
from torch import Tensor

from lyra_core.errors import CameraPathError, DepthError, ReconstructionError
from lyra_core.gaussians.depth_anything.gaussian_head import GaussianMaps
from lyra_core.gaussians.depth_anything.model import Prediction
from lyra_core.gaussians.depth_anything.scene import place, require_depth
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.rotation import quat_to_matrix, rotation_angle_deg
from lyra_core.values import CameraPath

HEIGHT, WIDTH, FOCAL = 42, 56, 50.0


def intrinsics(count: int) -> Tensor:
    k = [[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]]
    return torch.tensor(k, dtype=torch.float64).repeat(count, 1, 1)


def camera_path(count: int, *, step: float = 0.2) -> CameraPath:
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    t = torch.arange(count, dtype=torch.float64)
    quats = torch.stack([torch.ones_like(t), 0.01 * t, -0.02 * t, 0.005 * t], dim=-1)
    poses[:, :3, :3] = quat_to_matrix(quats)
    centers = step * torch.stack([t, (0.5 * t).sin(), 0.3 * t], dim=-1) + 1.0
    poses[:, :3, 3] = -(poses[:, :3, :3] @ centers[..., None])[..., 0]
    return CameraPath(world_to_cam=poses, intrinsics=intrinsics(count), image_height=HEIGHT, image_width=WIDTH)


def plane_depth(path: CameraPath) -> Tensor:
    """z-depth of the plane z + 0.2 x = 8 of the world."""
    normal, offset = torch.tensor([0.2, 0.0, 1.0], dtype=torch.float64), 8.0
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).double()
    rays = torch.einsum("tij,hwj->thwi", torch.linalg.inv(path.intrinsics), pixels)
    rays = torch.einsum("tji,thwj->thwi", path.world_to_cam[:, :3, :3], rays)
    return (offset - path.centers_m @ normal)[:, None, None] / (rays @ normal)


def network_frame(scale: float) -> Similarity:
    return Similarity(
        scale=scale,
        rotation=quat_to_matrix(torch.tensor([0.8, 0.1, -0.5, 0.2], dtype=torch.float64)),
        translation=torch.tensor([0.4, 0.1, -0.3], dtype=torch.float64),
    )


def seen_by_network(
    path: CameraPath, scale: float, *, noise: float = 0.0, maps: bool = False, **changes: object
) -> Prediction:
    rng = torch.Generator().manual_seed(0)
    depth = plane_depth(path) * scale
    depth = depth * (1 + noise * torch.randn(depth.shape, generator=rng, dtype=torch.float64))
    cameras = network_frame(scale).apply_to_cameras(path.world_to_cam)
    cameras[:, :3, 3] += noise * scale * 0.1 * torch.randn(len(path), 3, generator=rng)
    gaussians = None
    if maps:
        raw = torch.zeros(len(path), HEIGHT, WIDTH, 37)
        raw[..., 8] = 1.0  # quaternion xyzw of no rotation
        gaussians = GaussianMaps(raw=raw, opacity=torch.full(raw.shape[:3], 0.5), depth=depth.float())
    fields = {
        "depth": depth.float(),
        "confidence": torch.full(depth.shape, 3.0),
        "world_to_cam": cameras.float(),
        "intrinsics": path.intrinsics.float(),
        "gaussian_maps": gaussians,
    }
    return Prediction(**{**fields, **changes})


@pytest.mark.parametrize("count", [2, 5, 16])
def test_moving_cameras_fix_scale_and_place(count: int) -> None:
    path = camera_path(count)
    scene = place(seen_by_network(path, 0.13), path, None)
    assert scene.scale_source == "cameras"
    torch.testing.assert_close(scene.prediction.depth.double(), plane_depth(path), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scene.recovered, path.world_to_cam, atol=1e-4, rtol=1e-4)
    assert scene.placement.scale == 1.0


def test_noise_in_the_networks_cameras_hardly_moves_the_scale() -> None:
    path = camera_path(40)
    scene = place(seen_by_network(path, 0.13, noise=0.05), path, None)
    ratio = (scene.prediction.depth.double() / plane_depth(path)).median()
    assert float(ratio) == pytest.approx(1.0, abs=0.01)
    turn = scene.recovered[:, :3, :3] @ path.world_to_cam[:, :3, :3].mT
    assert float(rotation_angle_deg(turn).max()) < 0.5


def test_cameras_in_one_place_take_the_scale_of_known_depth() -> None:
    path = camera_path(6, step=0.0)
    known = plane_depth(path).float()
    known[:, :10] = 0.0
    scene = place(seen_by_network(path, 2.5), path, known)
    assert scene.scale_source == "reference depth"
    torch.testing.assert_close(scene.prediction.depth.double(), plane_depth(path), rtol=1e-4, atol=0)
    torch.testing.assert_close(scene.recovered, path.world_to_cam, atol=1e-4, rtol=1e-4)


def test_metric_depth_needs_no_motion() -> None:
    path = camera_path(3, step=0.0)
    scene = place(seen_by_network(path, 1.0, is_metric=True), path, None)
    assert scene.scale_source == "metric network"
    torch.testing.assert_close(scene.prediction.depth.double(), plane_depth(path), rtol=1e-4, atol=0)


def test_cameras_that_do_not_move_and_nothing_else_are_refused() -> None:
    path = camera_path(4, step=0.0)
    with pytest.raises(CameraPathError, match="cameras that move"):
        place(seen_by_network(path, 1.0), path, None)
    with pytest.raises(CameraPathError, match="cameras that move"):
        place(seen_by_network(path, 1.0), path, torch.zeros(4, HEIGHT, WIDTH))


@pytest.mark.parametrize("cameras", ["requested", "recovered"])
def test_gaussians_land_on_the_surface(cameras: str) -> None:
    path = camera_path(5)
    scene = place(seen_by_network(path, 0.13, maps=True), path, None)
    gaussians = scene.gaussians(cameras)
    # The adapter applies z-depth along the unit ray (as trained): undo that to get back to the
    # plane.
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    lengths = (((u - WIDTH / 2) / FOCAL) ** 2 + ((v - HEIGHT / 2) / FOCAL) ** 2 + 1).sqrt()
    centers = path.centers_m.float()[:, None]
    rays = gaussians.means.reshape(5, -1, 3) - centers
    on_surface = centers + rays * lengths.reshape(1, -1, 1)
    plane = on_surface @ torch.tensor([0.2, 0.0, 1.0])
    torch.testing.assert_close(plane, torch.full_like(plane, 8.0), rtol=1e-3, atol=1e-3)
    footprint = 0.1 * 2 / FOCAL * (1e-5 + (30 - 1e-5) * 0.5)
    wanted = plane_depth(path).float().reshape(-1, 1) * footprint
    torch.testing.assert_close(gaussians.scales, wanted.expand(-1, 3), rtol=1e-3, atol=1e-4)


def test_requested_placement_needs_requested_cameras() -> None:
    path = camera_path(2)
    scene = place(seen_by_network(path, 1.0, maps=True), None, None)
    assert scene.scale_source == "nothing"
    assert float((scene.recovered[0] - torch.eye(4)).abs().max()) < 1e-5
    with pytest.raises(ReconstructionError, match="need cameras, found none"):
        scene.gaussians("requested")


def test_unusable_depth_is_refused() -> None:
    path = camera_path(2)
    good = seen_by_network(path, 1.0)
    require_depth(good)
    bad = good.depth.clone()
    bad[1, 3, 4] = torch.nan
    with pytest.raises(DepthError, match=r"infinity in views \[1\]"):
        require_depth(seen_by_network(path, 1.0, depth=bad))
    with pytest.raises(DepthError, match="positive pixel"):
        require_depth(seen_by_network(path, 1.0, depth=0.0 * bad.nan_to_num()))
    everywhere = torch.ones_like(bad, dtype=torch.bool)
    with pytest.raises(DepthError, match="every pixel is sky"):
        require_depth(seen_by_network(path, 1.0, sky=everywhere))
