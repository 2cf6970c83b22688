"""Rendering along a path: engines agree, and what cannot be drawn says why."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from lyra_core.errors import GaussiansError, MissingExtraError, RecipeError
from lyra_core.gaussians.render import render
from lyra_core.values import CameraPath, Gaussians

HAS_GSPLAT = importlib.util.find_spec("gsplat") is not None


def scene(n: int = 300, degree: int = 1, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(n, 3, generator=g) * torch.tensor([1.5, 1.0, 1.0]) + torch.tensor([0.0, 0.0, 4.0]),
        quats=torch.randn(n, 4, generator=g),
        scales=torch.exp(torch.randn(n, 3, generator=g) * 0.5 - 2.0),
        opacities=torch.rand(n, generator=g),
        sh=torch.randn(n, (degree + 1) ** 2, 3, generator=g) * 0.3,
    )


def path(frames: int = 3, height: int = 40, width: int = 56) -> CameraPath:
    w2c = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    w2c[:, 0, 3] = torch.linspace(0.0, -0.4, frames)
    K = torch.tensor([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(world_to_cam=w2c, intrinsics=K.repeat(frames, 1, 1), image_height=height, image_width=width)


def test_the_cpu_engines_agree_on_every_frame():
    fast = render(scene(), path(), engine="numba", background=(0.3, 0.1, 0.0))
    plain = render(scene(), path(), engine="reference", background=(0.3, 0.1, 0.0))
    assert fast.color.shape == (3, 40, 56, 3)
    assert float((fast.color - plain.color).abs().max()) < 0.01
    assert float((fast.alpha - plain.alpha).abs().max()) < 0.01
    assert not torch.equal(fast.color[0], fast.color[2])


def test_auto_is_numba_on_a_cpu():
    assert torch.equal(render(scene(), path(1)).color, render(scene(), path(1), engine="numba").color)


def test_refuses_what_cannot_be_drawn():
    broken = scene()
    means = broken.means.clone()
    means[5, 1] = float("nan")
    with pytest.raises(GaussiansError, match=r"means must be finite.*1 of 300"):
        render(replace(broken, means=means), path())
    with pytest.raises(GaussiansError, match="at least one"):
        render(scene()[:0], path())
    with pytest.raises(RecipeError, match="unknown render engine 'opengl'"):
        render(scene(), path(), engine="opengl")


@pytest.mark.skipif(HAS_GSPLAT, reason="gsplat is installed")
def test_gsplat_without_gsplat_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"lyra-worlds\[gpu\]"):
        render(scene(), path(), engine="gsplat")


@pytest.mark.gpu
@pytest.mark.skipif(not (HAS_GSPLAT and torch.cuda.is_available()), reason="needs gsplat and a CUDA device")
@pytest.mark.parametrize("degree", [0, 3])
def test_gsplat_agrees_with_the_cpu(degree):
    world = scene(3000, degree)
    gpu = render(world.to("cuda"), path(3, 240, 336), engine="gsplat", background=(0.2, 0.4, 0.6))
    cpu = render(world, path(3, 240, 336), engine="numba", background=(0.2, 0.4, 0.6))
    mse = float((gpu.color.cpu() - cpu.color).square().mean())
    assert mse < 1e-4  # 40 dB
    covered = cpu.alpha > 0.5
    assert float((gpu.depth_m.cpu() - cpu.depth_m)[covered].abs().mean()) < 0.01
