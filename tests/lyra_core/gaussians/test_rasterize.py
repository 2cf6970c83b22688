"""The compiled rasteriser against the plain one, and both against values worked out by hand."""

import math

import pytest
import torch

from lyra_core.gaussians.rasterize import Rasterizer, rasterize
from lyra_core.gaussians.rasterize_reference import rasterize_reference, sh_basis
from lyra_core.values import Gaussians

HEIGHT, WIDTH = 60, 84
K = torch.tensor([[70.0, 0.0, 41.0], [0.0, 75.0, 30.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def random_scene(seed: int, *, degree: int = 0, n: int = 250) -> Gaussians:
    """Anisotropic rotated Gaussians, some behind the camera, some far outside the picture, some huge."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(n, 3, generator=g) * torch.tensor([3.0, 2.0, 3.0]) + torch.tensor([0.0, 0.0, 3.0])
    return Gaussians(
        means=means,
        quats=torch.randn(n, 4, generator=g),
        scales=torch.exp(torch.randn(n, 3, generator=g) * 0.9 - 2.2),
        opacities=torch.rand(n, generator=g),
        sh=torch.randn(n, (degree + 1) ** 2, 3, generator=g) * 0.3,
    )


def one_gaussian(**changes: torch.Tensor) -> Gaussians:
    fields = {
        "means": torch.tensor([[0.0, 0.0, 2.0]]),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "scales": torch.full((1, 3), 0.05),
        "opacities": torch.tensor([0.8]),
        "sh": torch.zeros(1, 1, 3),
    }
    return Gaussians(**{**fields, **changes})


def rigid(yaw: float, pitch: float, translation: tuple[float, float, float]) -> torch.Tensor:
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[:3, :3] = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=torch.float64) @ torch.tensor(
        [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=torch.float64
    )
    w2c[:3, 3] = torch.tensor(translation)
    return w2c


CAMERAS = [
    torch.eye(4, dtype=torch.float64),
    rigid(0.5, -0.2, (0.3, -0.1, 1.0)),
    rigid(-1.2, 0.4, (-0.5, 0.6, 2.0)),
]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("camera", range(len(CAMERAS)))
def test_agrees_with_the_reference(degree, camera):
    scene = random_scene(10 * degree + camera, degree=degree)
    background = (0.2, 0.5, 0.1)
    fast = rasterize(scene, CAMERAS[camera], K, HEIGHT, WIDTH, background)
    plain = rasterize_reference(scene, CAMERAS[camera], K, HEIGHT, WIDTH, background)
    mse = float((fast.color - plain.color).square().mean())
    assert 10 * math.log10(1.0 / max(mse, 1e-12)) > 60.0
    assert float((fast.alpha - plain.alpha).abs().max()) < 0.01
    assert float((fast.alpha - plain.alpha).abs().mean()) < 1e-4
    relative = (fast.depth_m - plain.depth_m).abs() / plain.depth_m.clamp(min=0.1)
    assert float(relative.mean()) < 1e-3
    assert float(plain.alpha.mean()) > 0.1  # the scene is really in view


def test_one_gaussian_has_the_profile_of_the_formula():
    raster = rasterize(one_gaussian(), CAMERAS[0], K, HEIGHT, WIDTH)
    variance_x, variance_y = (70 * 0.05 / 2) ** 2 + 0.3, (75 * 0.05 / 2) ** 2 + 0.3
    for y, x in [(30, 41), (31, 44), (27, 38)]:
        dx, dy = x + 0.5 - 41.0, y + 0.5 - 30.5
        alpha = 0.8 * math.exp(-0.5 * (dx * dx / variance_x + dy * dy / variance_y))
        assert float(raster.alpha[y, x]) == pytest.approx(alpha, abs=2e-5)
        assert float(raster.color[y, x, 0]) == pytest.approx(0.5 * alpha, abs=2e-5)
        assert float(raster.depth_m[y, x]) == pytest.approx(2.0, rel=1e-5)


def test_nearer_hides_farther_and_opacity_is_capped():
    near, far = (
        one_gaussian(opacities=torch.ones(1)),
        one_gaussian(means=torch.tensor([[0.0, 0.0, 4.0]])),
    )
    raster = rasterize(Gaussians.concatenate([far, near]), CAMERAS[0], K, HEIGHT, WIDTH)
    assert float(raster.depth_m[30, 40]) < 2.2
    assert float(rasterize(near, CAMERAS[0], K, HEIGHT, WIDTH).alpha.max()) <= 0.999 + 1e-6


def test_behind_the_camera_or_outside_draws_only_the_background():
    for mean in ([0.0, 0.0, -2.0], [0.0, 0.0, 0.005], [9.0, 0.0, 2.0]):
        raster = rasterize(one_gaussian(means=torch.tensor([mean])), CAMERAS[0], K, HEIGHT, WIDTH, (0.1, 0.2, 0.3))
        assert float(raster.alpha.max()) == 0.0
        assert float(raster.depth_m.max()) == 0.0
        torch.testing.assert_close(raster.color, torch.tensor([0.1, 0.2, 0.3]).expand(HEIGHT, WIDTH, 3))


def test_equal_bytes_for_any_number_of_threads():
    import numba

    scene = random_scene(7, degree=1, n=2000)
    drawn = Rasterizer(scene).draw(CAMERAS[1], K, HEIGHT, WIDTH)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = Rasterizer(scene).draw(CAMERAS[1], K, HEIGHT, WIDTH)
    finally:
        numba.set_num_threads(before)
    assert torch.equal(drawn.color, alone.color)
    assert torch.equal(drawn.depth_m, alone.depth_m)


def test_a_rasterizer_can_draw_twice():
    rasterizer = Rasterizer(random_scene(3))
    first = rasterizer.draw(CAMERAS[0], K, HEIGHT, WIDTH)
    rasterizer.draw(CAMERAS[2], K, HEIGHT, WIDTH)
    again = rasterizer.draw(CAMERAS[0], K, HEIGHT, WIDTH)
    assert torch.equal(first.color, again.color)


# Known values: Y_0^0 everywhere, degree 1 is linear in (y, z, x), degree 2 and 3 at the pole and on the axes.
KNOWN_SH = [
    ((0.0, 0.0, 1.0), {0: 0.2820948, 2: 0.4886025, 6: 0.6307831, 12: 0.7463527}),
    (
        (1.0, 0.0, 0.0),
        {0: 0.2820948, 3: -0.4886025, 6: -0.3153916, 8: 0.5462742, 13: 0.4570458, 15: -0.5900436},
    ),
    (
        (0.0, 1.0, 0.0),
        {0: 0.2820948, 1: -0.4886025, 6: -0.3153916, 8: -0.5462742, 9: 0.5900436, 11: 0.4570458},
    ),
]


@pytest.mark.parametrize(("direction", "known"), KNOWN_SH)
def test_sh_basis_has_the_known_values(direction, known):
    basis = sh_basis(torch.tensor([direction]), 3)[0]
    for k in range(16):
        assert float(basis[k]) == pytest.approx(known.get(k, 0.0), abs=1e-6), k


def test_sh_basis_is_orthonormal():
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=g, dtype=torch.float64), dim=1)
    basis = sh_basis(directions, 3)
    gram = 4 * math.pi * basis.T @ basis / len(directions)
    assert float((gram - torch.eye(16)).abs().max()) < 0.03
