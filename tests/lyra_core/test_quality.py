"""Every measurement moves the right way when a world is spoilt in the way it is meant to notice."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lyra_core.errors import RecipeError
from lyra_core.gates import Gate
from lyra_core.quality import accept, mean_lab, measure, sharpness
from lyra_core.values import Gaussians, VideoClip
from lyra_core.world_models.load import load_model

SEEDS = Path(__file__).resolve().parents[2] / "examples" / "seeds"


@pytest.fixture(scope="module")
def world() -> tuple[VideoClip, Gaussians]:
    model = load_model("parallax")
    clip = model.generate(SEEDS / "mountain_meadow.jpg", "orbit-right", num_frames=9, width=160, height=96)
    return clip, model.reconstruct(clip)


@pytest.fixture(scope="module")
def good(world):
    return measure(*world)


def test_a_good_world_is_good(good, world):
    assert good.psnr_db > 40
    assert good.ssim > 0.98
    assert good.coverage_frac > 0.99
    assert good.coverage_frac + good.hole_frac == pytest.approx(1.0)
    assert good.floater_frac < 0.05
    assert 0.5 < good.sharpness_ratio < 1.5
    assert good.color_drift_lab < 5
    assert good.num_nonfinite == 0
    assert good.num_splats == len(world[1])


def test_transparent(world, good):
    clip, gaussians = world
    spoilt = measure(clip, replace(gaussians, opacities=gaussians.opacities * 0.0))
    assert spoilt.hole_frac == 1.0
    assert spoilt.opacity_mean == 0.0
    assert spoilt.psnr_db < good.psnr_db - 20
    assert spoilt.ssim < good.ssim - 0.3


def test_half_missing(world, good):
    clip, gaussians = world
    spoilt = measure(clip, gaussians[gaussians.means[:, 0] < 0])
    assert 0.2 < spoilt.hole_frac < 0.8
    assert spoilt.num_splats < good.num_splats


def test_shifted(world, good):
    clip, gaussians = world
    spoilt = measure(clip, replace(gaussians, means=gaussians.means + torch.tensor([0.4, 0.0, 0.0])))
    assert spoilt.psnr_db < good.psnr_db - 10
    assert spoilt.ssim < good.ssim - 0.2


def test_swollen_splats_blur(world, good):
    clip, gaussians = world
    spoilt = measure(clip, replace(gaussians, scales=gaussians.scales * 6))
    assert spoilt.ssim < good.ssim - 0.05


def test_floaters(world, good):
    clip, gaussians = world
    g = torch.Generator().manual_seed(0)
    hanging = gaussians[torch.randperm(len(gaussians), generator=g)[: len(gaussians) // 4]]
    centre = clip.cameras.centers_m[0].float()
    hanging = replace(hanging, means=centre + (hanging.means - centre) * 0.4, scales=hanging.scales * 0.05)
    spoilt = measure(clip, Gaussians.concatenate([gaussians, hanging]))
    assert spoilt.floater_frac > good.floater_frac + 0.1


def test_blurred_video(world, good):
    clip, gaussians = world
    frames = clip.frames.permute(0, 3, 1, 2).float()
    soft = torch.nn.functional.avg_pool2d(frames, 5, 1, 2, count_include_pad=False)
    soft[0] = frames[0]
    spoilt = measure(replace(clip, frames=soft.permute(0, 2, 3, 1).to(torch.uint8)), gaussians)
    assert spoilt.sharpness_ratio < 0.4 * good.sharpness_ratio


def test_drifting_colour(world, good):
    clip, gaussians = world
    frames = clip.frames.float()
    frames[1:, ..., 0] = (frames[1:, ..., 0] + 50).clamp(max=255)
    spoilt = measure(replace(clip, frames=frames.to(torch.uint8)), gaussians)
    assert spoilt.color_drift_lab > good.color_drift_lab + 8


def test_nonfinite_values_are_counted_and_do_not_stop_the_measuring(world, good):
    clip, gaussians = world
    means = gaussians.means.clone()
    means[:7, 1] = float("nan")
    spoilt = measure(clip, replace(gaussians, means=means))
    assert spoilt.num_nonfinite == 7
    assert spoilt.psnr_db > 30
    broken = measure(clip, replace(gaussians, means=torch.full_like(means, torch.inf)))
    assert broken.hole_frac == 1.0
    assert math.isnan(broken.psnr_db)


def test_floaters_are_not_guessed_without_depth(world):
    clip, gaussians = world
    assert math.isnan(measure(replace(clip, depth_m=None, sky=None), gaussians, max_views=1).floater_frac)


def test_gates(good, world):
    assert accept(good, {"psnr_db": Gate(min=20.0), "hole_frac": Gate(max=0.05)}) == (True, [])
    accepted, reasons = accept(good, {"psnr_db": Gate(min=98.9), "num_nonfinite": Gate(max=-1.0)})
    assert not accepted
    assert len(reasons) == 2
    assert reasons[0].startswith("psnr_db")
    unmeasured = replace(good, floater_frac=math.nan)
    assert accept(unmeasured, {"floater_frac": Gate(max=1.0)}) == (False, ["floater_frac could not be measured"])
    with pytest.raises(RecipeError, match="no such quality measurement: lpips"):
        accept(good, {"lpips": Gate(max=0.5)})
    with pytest.raises(RecipeError, match="max_views=0"):
        measure(*world, max_views=0)


def test_lab_has_its_known_values():
    white, red = torch.ones(2, 2, 3), torch.tensor([1.0, 0.0, 0.0]).expand(2, 2, 3)
    torch.testing.assert_close(mean_lab(white), torch.tensor([100.0, 0.0, 0.0]).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(mean_lab(red), torch.tensor([53.24, 80.09, 67.20]).double(), atol=0.05, rtol=0)


def test_sharpness_grows_with_detail():
    g = torch.Generator().manual_seed(0)
    noisy = torch.rand(32, 32, 3, generator=g)
    assert sharpness(noisy) > 10 * sharpness(
        torch.nn.functional.avg_pool2d(noisy.permute(2, 0, 1), 5, 1, 2).permute(1, 2, 0)
    )
