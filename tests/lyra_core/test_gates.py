"""Each quality gate fails a world with the fault it is named after, and passes the same world without it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lyra_core.clip_quality import flicker_levels, motion_frac, motion_px, returning_pair, revisit_db
from lyra_core.errors import RecipeError
from lyra_core.gates import DEFAULT_GATES, GATES, require_gates
from lyra_core.gaussians.shape_quality import isolated_frac, needle_frac
from lyra_core.quality import failed_gates, measure
from lyra_core.values import Gaussians, Part, VideoClip
from lyra_core.world_models.load import load_model

SEEDS = Path(__file__).resolve().parents[2] / "examples" / "seeds"


def made(seed):
    model = load_model("parallax")
    clip = model.generate(seed, "orbit-right", num_frames=9, width=96, height=64)
    return clip, model.reconstruct(clip)


@pytest.fixture(scope="module")
def good() -> tuple[VideoClip, Gaussians]:
    """A world filmed to the end of the path and back."""
    clip, gaussians = made(SEEDS / "mountain_meadow.jpg")
    order = [*range(9), *range(7, -1, -1)]
    cameras, depth_m = clip.cameras[order], clip.depth_m[order]
    return VideoClip(frames=clip.frames[order], cameras=cameras, fps=clip.fps, depth_m=depth_m), gaussians


@pytest.fixture(scope="module")
def quality(good):
    return measure(*good, max_views=2)


def failed(quality, **changes) -> list[str]:
    return [reason.partition(":")[0] for reason in failed_gates(replace(quality, **changes), list(GATES))]


def test_a_good_world_passes_every_gate(quality):
    assert failed(quality) == []
    assert all(not math.isnan(getattr(quality, gate.column)) for gate in GATES.values())


def test_what_was_not_measured_fails_no_gate(quality):
    assert failed(quality, **{gate.column: math.nan for gate in GATES.values()}) == []


def test_empty(tmp_path):
    Image.fromarray(np.full((64, 96, 3), 137, dtype=np.uint8)).save(tmp_path / "blank.png")
    blank = measure(*made(tmp_path / "blank.png"), max_views=2)
    assert blank.psnr_db > 60  # which is why PSNR alone accepts it
    assert failed(blank) == ["empty"]
    assert blank.texture_frac == 0
    assert math.isnan(blank.motion_frac)  # nothing in the picture could have shown a motion


def test_motion(good, quality):
    clip, _ = good
    asked = motion_px(clip.depth_m[0], clip.cameras, 8)
    assert motion_frac(clip.frames, 8, asked) > 0.3
    still = clip.frames[:1].expand_as(clip.frames)
    assert failed(quality, motion_frac=motion_frac(still, 8, asked)) == ["motion"]
    # A camera that stands still asks for nothing.
    assert motion_px(clip.depth_m[0], clip.cameras, 0) == pytest.approx(0, abs=1e-3)
    assert math.isnan(motion_frac(still, 8, 0.0))
    assert math.isnan(motion_px(torch.zeros(64, 96), clip.cameras, 8))


def test_displacement_is_that_of_the_cameras(good):
    clip, _ = good
    moved = replace(clip.cameras, world_to_cam=clip.cameras.world_to_cam[:1].repeat(17, 1, 1))
    moved.world_to_cam[5, 0, 3] += 0.5
    asked = motion_px(torch.full((64, 96), 4.0), moved, 5)
    assert asked == pytest.approx(float(clip.cameras.intrinsics[0, 0, 0]) * 0.5 / 4.0, rel=1e-4)


def test_flicker(good, quality):
    frames = good[0].frames.int().clamp(10, 245)
    frames[1::2] += 6
    frames[0::2] -= 6
    level = flicker_levels(frames.to(torch.uint8))
    assert level == pytest.approx(6, abs=0.5)
    assert failed(quality, flicker_levels=level) == ["flicker"]
    assert math.isnan(flicker_levels(good[0].frames[:2]))


def test_revisit(good, quality):
    clip, _ = good
    assert returning_pair(clip.cameras) == (0, 16)
    assert returning_pair(clip.cameras[:9]) is None
    frames = clip.frames.clone()
    frames[-3:] = frames[-3:].flip(1)
    assert failed(quality, revisit_db=revisit_db(frames, clip.cameras)) == ["revisit"]
    assert revisit_db(clip.frames, clip.cameras) == 99.0
    assert math.isnan(revisit_db(clip.frames[:9], clip.cameras[:9]))


def test_floaters(good, quality):
    clip, gaussians = good
    g = torch.Generator().manual_seed(0)
    hanging = gaussians[torch.randperm(len(gaussians), generator=g)[: len(gaussians) // 2]]
    hanging = replace(hanging, means=hanging.means * 0.4, scales=hanging.scales * 0.05)
    spoilt = measure(clip, Gaussians.concatenate([gaussians, hanging]), max_views=2)
    assert failed(quality, floater_frac=spoilt.floater_frac) == ["floaters"]


def test_isolated(good, quality):
    surface = good[1].of_parts(Part.KEYFRAME)
    g = torch.Generator().manual_seed(0)
    strewn = surface[torch.randperm(len(surface), generator=g)[: len(surface) // 7]]
    places = torch.rand(len(strewn), 3, generator=g) * torch.tensor([8.0, 8.0, 4.0]) - torch.tensor([4.0, 4.0, 0.0])
    spoilt = isolated_frac(Gaussians.concatenate([surface, replace(strewn, means=places)]))
    assert failed(quality, isolated_frac=spoilt) == ["isolated"]
    assert math.isnan(isolated_frac(surface[:4]))


def test_needles(good, quality):
    gaussians = good[1]
    scales = gaussians.scales.clone()
    scales[::4, 0] = 15.0 * scales[::4].max(dim=1).values
    assert failed(quality, needle_frac=needle_frac(replace(gaussians, scales=scales))) == ["needles"]
    assert math.isnan(needle_frac(replace(gaussians, opacities=gaussians.opacities * 0.0)))


def test_names_are_known():
    require_gates(DEFAULT_GATES)
    with pytest.raises(RecipeError, match=r"wanted some of empty, motion, .*, found 'sharpness'"):
        require_gates(["empty", "sharpness"])
