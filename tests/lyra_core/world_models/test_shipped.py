"""The shipped checkpoint makes worlds that are worth something: floors some decibels below what was measured.

Numbers of many scenes are in lyra_core/mini/weights/README.md; here one held-out place and one photograph that no
training saw tell that weights, code and choices still belong together.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from lyra_core.evaluation.estimated_depth import camera_path, with_seed_depth
from lyra_core.evaluation.measures import masked_psnr_db, seen_by_seed
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.procedural.atlas import default_atlas
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.scene_batch import SceneBatch
from lyra_core.procedural.scenes import sample_scene
from lyra_core.procedural.views import sample_path
from lyra_core.procedural.worlds import render_scene
from lyra_core.values import Seed
from lyra_core.video.depth_cache import SKY_DEPTH_M
from lyra_core.video.world_state import to_bytes, to_unit_range
from lyra_core.world_models.mini import load_mini_model

PHOTOGRAPH = Path(__file__).resolve().parents[3] / "examples" / "seeds" / "coffee_table.jpg"
FRAMES, HEIGHT, WIDTH = 161, 128, 224
SCENE = 5

SEEN_F80_DB = 21.5
REVISIT_DB = 22.0
OWN_FRAMES_DB = 20.0


@pytest.fixture(scope="module")
def model():
    return load_mini_model(reconstruction={"tier": "100k"})


@pytest.fixture(scope="module")
def place() -> Clips:
    """A held-out room: all cameras of a path that goes out and comes back, and the frames that are looked at."""
    scene = sample_scene(SCENE, "heldout")
    path = sample_path(scene, "out-and-back", FRAMES, HEIGHT, WIDTH)
    drawn = render_scene(SceneBatch.of([scene], default_atlas("heldout")), [path[[0, 80]]], HEIGHT, WIDTH)
    frames, depth = torch.zeros(1, FRAMES, 3, HEIGHT, WIDTH), torch.zeros(1, FRAMES, HEIGHT, WIDTH)
    frames[0, [0, 80]] = drawn.rgb[0].permute(0, 3, 1, 2) * 2 - 1
    depth[0, [0, 80]] = torch.where(drawn.sky, SKY_DEPTH_M, drawn.depth_m)[0]
    w2c, K = (path.world_to_cam @ path.cam_to_world[:1]).float()[None], path.intrinsics.float()[None]
    captions = torch.zeros(1, 8, dtype=torch.uint8)
    return Clips(frames=frames, depth_m=depth, world_to_cam=w2c, intrinsics=K, captions=captions)


@pytest.mark.slow  # a second world of the shipped weights
def test_a_path_that_returns_shows_what_was_there(model, place):
    known = with_seed_depth(place, model.parts.models.depth, model.parts.config.depth)
    image = to_bytes(place.frames[0, :1])[0]
    seed = Seed(image=image, intrinsics=place.intrinsics[0, 0].double(), sha256="0" * 64, focal_source="manifest")
    ids = ["1" * 64, "2" * 64]
    depth_m = known.depth_m[0, 0]
    clip = model.rollout.run(seed, camera_path(place, 0), ["a room"], ids, seed_depth_m=depth_m)
    made = torch.stack([to_unit_range(clip.frames[i]) for i in (80, 160)]).add(1) / 2
    truth = (place.frames[0, [80, 0]] + 1) / 2
    seen = seen_by_seed(place, [80])[0]
    seen_db = float(masked_psnr_db(made[:1], truth[:1], seen))
    revisit_db = psnr_db(made[1], truth[1])
    assert seen_db > SEEN_F80_DB
    assert revisit_db > REVISIT_DB


def test_a_photograph_becomes_a_world(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = model.generate(PHOTOGRAPH, "dolly-in")
    assert clip.frames.shape == (81, HEIGHT, WIDTH, 3)
    gaussians = model.reconstruct(clip)
    parts = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.opacities)
    assert all(bool(torch.isfinite(part).all()) for part in parts)
    assert 20_000 < len(gaussians) <= 100_000
    frames = [0, 27, 53, 80]
    drawn = render(gaussians, clip.cameras[frames]).color
    own_db = psnr_db(drawn, clip.frames[frames].float() / 255)
    assert own_db > OWN_FRAMES_DB
