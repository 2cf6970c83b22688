from dataclasses import replace

import pytest
import torch

from lyra_core.errors import FrameError, RecipeError
from lyra_core.gaussians.photometric import psnr_db, ssim
from lyra_core.gaussians.rasterize_reference import rasterize_reference
from lyra_core.gaussians.rasterize_torch import rasterize_torch
from lyra_core.gaussians.refine import LearningRates, RefineConfig, refine
from lyra_core.gaussians.render import render
from lyra_core.values import CameraPath, Gaussians, VideoClip

HEIGHT, WIDTH = 18, 28
FAST = LearningRates(means=1e-3, sh_base=2e-2, exposures=1e-3)


def some_gaussians(count: int = 40, sh: int = 4) -> Gaussians:
    g = torch.Generator().manual_seed(3)
    place = torch.rand(count, 3, generator=g) * torch.tensor([3.0, 2.0, 2.0]) + torch.tensor([-1.5, -1.0, 2.0])
    return Gaussians(
        means=place,
        quats=torch.randn(count, 4, generator=g),
        scales=torch.rand(count, 3, generator=g) * 0.2 + 0.1,
        opacities=torch.rand(count, generator=g) * 0.6 + 0.35,
        sh=torch.randn(count, sh, 3, generator=g) * torch.tensor([0.6, 0.1, 0.1, 0.1])[:sh, None],
    )


def cameras(count: int) -> CameraPath:
    w2c = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    w2c[:, 0, 3] = torch.linspace(-0.3, 0.3, count)
    K = torch.tensor([[23.0, 0, WIDTH / 2], [0, 23.0, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(world_to_cam=w2c, intrinsics=K.repeat(count, 1, 1), image_height=HEIGHT, image_width=WIDTH)


def film(gaussians: Gaussians, count: int = 9) -> VideoClip:
    drawn = render(gaussians, cameras(count), engine="reference")
    return VideoClip(frames=(drawn.color * 255).round().to(torch.uint8), cameras=cameras(count), depth_m=drawn.depth_m)


def test_differentiable_pictures_equal_the_reference():
    gaussians, path = some_gaussians(), cameras(2)
    for w2c, K in zip(path.world_to_cam, path.intrinsics, strict=True):
        expected = rasterize_reference(gaussians, w2c, K, HEIGHT, WIDTH)
        found = rasterize_torch(gaussians, w2c, K, HEIGHT, WIDTH)
        assert torch.allclose(found.color, expected.color, atol=3e-4)
        assert torch.allclose(found.alpha, expected.alpha, atol=3e-4)
        solid = expected.alpha > 0.1
        assert torch.allclose(found.depth_m[solid], expected.depth_m[solid], atol=5e-3)


def test_gradients_of_centres_and_camera_equal_finite_differences():
    gaussians, path = some_gaussians(12, sh=1), cameras(1)
    target = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))

    def loss(means: torch.Tensor, w2c: torch.Tensor) -> torch.Tensor:
        shown = rasterize_torch(replace(gaussians, means=means), w2c, path.intrinsics[0], HEIGHT, WIDTH)
        return (shown.color.double() * target).sum()

    means, w2c = gaussians.means.clone().requires_grad_(), path.world_to_cam[0].clone().requires_grad_()
    loss(means, w2c).backward()
    for tensor, index in ((means, (3, 0)), (means, (5, 1)), (w2c, (0, 3)), (w2c, (1, 3))):
        step = torch.zeros_like(tensor)
        step[index] = 2e-3
        others = (lambda x: loss(x, w2c)) if tensor is means else (lambda x: loss(means, x))
        difference = (others(tensor.detach() + step) - others(tensor.detach() - step)) / 4e-3
        assert float(tensor.grad[index]) == pytest.approx(float(difference.detach()), rel=0.06, abs=0.05)


def test_refinement_repairs_what_was_disturbed():
    truth = some_gaussians()
    g = torch.Generator().manual_seed(1)
    wrong = replace(
        truth,
        means=truth.means + 0.02 * torch.randn(truth.means.shape, generator=g),
        sh=truth.sh + 0.25 * torch.randn(truth.sh.shape, generator=g) * torch.tensor([1.0, 0, 0, 0])[:, None],
    )
    config = RefineConfig(steps=48, rates=FAST, max_coverage_loss=0.01)
    found = refine(wrong, film(truth), config, engine="torch")
    assert found.is_kept
    assert found.psnr_after_db > found.psnr_before_db + 3.0
    assert found.coverage_after >= found.coverage_before - 0.01
    assert torch.equal(found.world_to_cam[0], cameras(9).world_to_cam[0])
    again = refine(wrong, film(truth), config, engine="torch")
    assert torch.equal(found.gaussians.means, again.gaussians.means)
    assert found.psnr_after_db == again.psnr_after_db


def test_exposure_takes_up_flicker_and_spares_the_gaussians():
    truth = some_gaussians()
    clip = film(truth)
    dark = clip.frames.clone()
    dark[2] = (dark[2].float() * 0.6).to(torch.uint8)
    rates = replace(FAST, exposures=2e-2, means=1e-6, sh_base=1e-6, opacity_logits=1e-6, log_scales=1e-6, quats=1e-6)
    config = RefineConfig(steps=24, rates=rates, exposure_weight=0.0)
    found = refine(truth, replace(clip, frames=dark), config, engine="torch")
    assert found.psnr_after_db > 25.0
    assert not found.is_kept


def test_the_gate_returns_the_input_where_held_out_frames_lose():
    truth = some_gaussians()
    clip = film(truth)
    mad = replace(clip, frames=torch.where(torch.arange(9)[:, None, None, None] == 7, clip.frames, 255 - clip.frames))
    found = refine(truth, mad, RefineConfig(steps=15, rates=FAST), engine="torch")
    assert not found.is_kept
    assert found.gaussians is truth
    assert found.psnr_after_db < found.psnr_before_db


def test_wrong_requests_are_named():
    truth = some_gaussians(4)
    with pytest.raises(FrameError, match="holds out"):
        refine(truth, film(truth, 3), engine="torch")
    with pytest.raises(RecipeError, match="engine"):
        refine(truth, film(truth, 9), engine="magic")
    with pytest.raises(RecipeError, match="pairs"):
        rasterize_torch(some_gaussians(60), torch.eye(4), torch.eye(3), 1000, 1000)
    with pytest.raises(RecipeError, match="steps"):
        RefineConfig(steps=0)


def test_ssim_and_psnr_of_known_pictures():
    picture = torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(0))
    assert float(ssim(picture, picture)) == pytest.approx(1.0, abs=1e-5)
    noisy = (picture + 0.2 * torch.randn(20, 30, 3, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert 0.2 < float(ssim(noisy, picture)) < 0.95
    assert psnr_db(picture * 0, picture * 0 + 0.1) == pytest.approx(20.0, abs=1e-3)
