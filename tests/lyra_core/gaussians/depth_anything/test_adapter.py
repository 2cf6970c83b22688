import math

import pytest
import torch
from torch import Tensor

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.depth_anything.adapter import gaussians_from_maps, to_world
from lyra_core.gaussians.depth_anything.gaussian_head import GaussianMaps
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.rotation import quat_to_matrix, quat_xyzw_to_matrix, rotation_angle_deg
from lyra_core.values import Gaussians

ROWS, COLS, STRIDE = 6, 8, 2


def random_maps(views: int = 2) -> GaussianMaps:
    rng = torch.Generator().manual_seed(0)
    return GaussianMaps(
        raw=torch.randn(views, ROWS, COLS, 37, generator=rng),
        opacity=torch.rand(views, ROWS, COLS, generator=rng),
        depth=4.0 + torch.rand(views, ROWS, COLS, generator=rng),
    )


def made_with(w2c: Tensor, maps: GaussianMaps | None = None) -> Gaussians:
    k = torch.tensor([[20.0, 0, 8], [0, 24, 6], [0, 0, 1]]).repeat(len(w2c), 1, 1)
    return gaussians_from_maps(maps or random_maps(), w2c, k, ROWS * STRIDE, COLS * STRIDE)


def covariance(gaussians: Gaussians) -> Tensor:
    axes = quat_to_matrix(gaussians.quats.double()) * gaussians.scales.double()[:, None]
    return axes @ axes.mT


def turned_cameras(degrees: float) -> Tensor:
    half = math.radians(degrees) / 2
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, :3, :3] = quat_to_matrix(torch.tensor([math.cos(half), 0.0, math.sin(half), 0.0]))
    return w2c


def test_plain_numbers_of_one_gaussian() -> None:
    maps = random_maps(1)
    raw = torch.zeros_like(maps.raw)
    raw[0, 2, 3, :2] = torch.tensor([0.5, -0.25])  # pixels of the coarse grid
    raw[0, 2, 3, 8] = 1.0
    raw[0, 2, 3, 9] = 0.7  # red, constant
    raw[0, 2, 3, 10] = 1.0  # red, first of degree 1
    raw[0, 2, 3, 36] = 0.5  # farther by half a metre
    raw[..., 8] = 1.0
    maps = GaussianMaps(raw=raw, opacity=maps.opacity, depth=torch.full_like(maps.depth, 4.0))
    gaussian = made_with(torch.eye(4)[None], maps)[2 * COLS + 3 : 2 * COLS + 4]
    ray = torch.tensor([(4.0 - 4.0) / 10.0, (2.25 - 3.0) / 12.0, 1.0])  # fx 10, fy 12 on that grid
    torch.testing.assert_close(gaussian.means[0], 4.5 * ray / ray.norm())
    sigma = (1e-5 + (30 - 1e-5) * 0.5) * 4.5 * 0.1 * (1 / 10 + 1 / 12)
    torch.testing.assert_close(gaussian.scales[0], torch.full((3,), sigma))
    torch.testing.assert_close(gaussian.opacities[0], maps.opacity[0, 2, 3])
    assert float(gaussian.sh[0, 0, 0]) == pytest.approx(0.7)
    assert float(gaussian.sh[0, 1, 0]) == pytest.approx(0.025)
    torch.testing.assert_close(gaussian.quats[0], torch.tensor([1.0, 0, 0, 0]))


def test_trained_rotation_is_right_only_in_the_reference_frame() -> None:
    maps = random_maps()
    local = quat_xyzw_to_matrix(maps.raw[..., 5:9].reshape(-1, 4))
    still = quat_to_matrix(made_with(torch.eye(4).repeat(2, 1, 1)).quats)
    torch.testing.assert_close(still, local, atol=1e-4, rtol=0)
    w2c = turned_cameras(60)
    turned = quat_to_matrix(made_with(w2c).quats)
    proper = w2c[0, :3, :3].mT @ local
    off = rotation_angle_deg(turned @ proper.mT)
    assert float(off.median()) > 20.0  # the habit the weights were trained with


@pytest.mark.parametrize("seed", range(3))
def test_moving_to_the_world_moves_everything(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    similarity = Similarity(
        scale=2.5,
        rotation=quat_to_matrix(torch.randn(4, generator=rng, dtype=torch.float64)),
        translation=torch.randn(3, generator=rng, dtype=torch.float64),
    )
    before = made_with(turned_cameras(20))
    after = to_world(before, similarity)
    torch.testing.assert_close(after.means, similarity.apply(before.means))
    r = similarity.rotation
    expected = similarity.scale**2 * r @ covariance(before) @ r.mT
    torch.testing.assert_close(covariance(after), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(after.opacities, before.opacities)
    assert torch.equal(after.sh[:, 0], before.sh[:, 0])
    back = to_world(after, similarity.inverse())
    torch.testing.assert_close(back.means, before.means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.sh, before.sh, rtol=1e-4, atol=1e-5)


def test_as_many_cameras_as_views() -> None:
    with pytest.raises(ReconstructionError, match="as many cameras, found 3 poses"):
        made_with(torch.eye(4).repeat(3, 1, 1))
