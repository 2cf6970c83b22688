from dataclasses import replace

import pytest
import torch

from lyra_core.errors import FrameError, RecipeError
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter
from lyra_core.gaussians.rasterize_reference import rasterize_reference
from lyra_core.gaussians.rasterize_torch import rasterize_torch
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.refine import LearningRates, RefineConfig, refine
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.procedural.perturbed import perturbed_clip
from lyra_core.values import CameraPath, Gaussians, VideoClip

HEIGHT, WIDTH = 18, 28
FAST = LearningRates(means=0.03, sh_base=2e-2, exposures=1e-3)


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
    config = RefineConfig(steps=48, rates=FAST, max_coverage_loss=0.01, judge_steps=5)
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
    config = RefineConfig(steps=24, rates=rates, exposure_weight=0.0, judge_steps=5)
    found = refine(truth, replace(clip, frames=dark), config, engine="torch")
    assert found.psnr_after_db > 25.0
    assert not found.is_kept


def test_the_gate_returns_the_input_where_held_out_frames_lose():
    truth = some_gaussians()
    clip = film(truth)
    mad = replace(clip, frames=torch.where(torch.arange(9)[:, None, None, None] == 7, clip.frames, 255 - clip.frames))
    found = refine(truth, mad, RefineConfig(steps=15, rates=FAST, judge_steps=5), engine="torch")
    assert not found.is_kept
    assert found.gaussians is truth
    assert found.psnr_after_db < found.psnr_before_db


def test_faults_of_a_held_out_frame_do_not_count_against_the_gaussians():
    truth = some_gaussians()
    clip = film(truth)
    faulty = clip.frames.clone()
    faulty[7] = (faulty[7].float() * 0.7).to(torch.uint8)
    w2c = clip.cameras.world_to_cam.clone()
    w2c[7, 0, 3] += 0.05  # a pixel at the typical distance
    shaken = replace(clip, frames=faulty, cameras=replace(clip.cameras, world_to_cam=w2c))
    still = LearningRates(**dict.fromkeys(LearningRates.__dataclass_fields__, 1e-9))
    found = refine(truth, shaken, RefineConfig(steps=1, rates=still), engine="torch")
    assert found.psnr_before_db > 38.0
    assert float((found.world_to_cam[7] - clip.cameras.world_to_cam[7]).abs().max()) < 0.035


def test_the_gauge_stays_where_it_is():
    truth = some_gaussians()
    clip = film(truth)
    dim = replace(clip, frames=(clip.frames.float() * 0.8).to(torch.uint8))
    rates = replace(FAST, exposures=1e-2)
    config = RefineConfig(steps=24, rates=rates, exposure_weight=0.0, min_gain_db=-99.0, max_coverage_loss=1.0)
    found = refine(truth, dim, config, engine="torch")
    # All frames are darker, so the world has to become darker: exposures must not take that up together.
    assert float(found.gaussians.sh[:, 0].mean()) < float(truth.sh[:, 0].mean()) - 0.1
    assert torch.equal(found.world_to_cam[0], clip.cameras.world_to_cam[0])


def test_what_no_frame_sees_is_left_alone():
    seen = some_gaussians()
    behind = replace(seen, means=seen.means * torch.tensor([1.0, 1.0, -1.0]))
    both = Gaussians.concatenate([seen, behind])
    config = RefineConfig(steps=20, rates=FAST, min_gain_db=-99.0, max_coverage_loss=1.0, judge_steps=1)
    found = refine(both, film(seen), config, engine="torch").gaussians[len(seen) :]
    assert torch.allclose(found.opacities, behind.opacities.clamp(1e-4, 1 - 1e-4), atol=1e-5)
    assert torch.allclose(found.scales, behind.scales, rtol=1e-5)


@pytest.mark.slow
def test_a_video_with_a_generators_faults_gains():
    film_ = perturbed_clip(11, "truck-left", 17, 18, 32)
    config = ReconstructionConfig(tier=600, keyframes=KeyframeConfig(max_keyframes=4), sample_views=8)
    world = reconstruct(film_.perturbed, lifter=ClipDepthLifter(), config=config).gaussians
    found = refine(world, film_.perturbed, RefineConfig(steps=120), engine="torch")
    assert found.is_kept
    assert found.psnr_after_db > found.psnr_before_db + 0.2
    held = [7, 15]
    clean = [
        psnr_db(render(x, film_.truth.cameras[held]).color, film_.truth.frames[held].float() / 255)
        for x in (world, found.gaussians)
    ]
    assert clean[1] > clean[0] + 0.2


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
