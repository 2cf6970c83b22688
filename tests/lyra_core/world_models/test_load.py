"""The front door, from a photograph's file to a drawn world."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lyra_core
from flows.recipes import find_recipe
from lyra_core.depth import DepthEstimator
from lyra_core.errors import FrameError, RecipeError, SeedError, WeightsError
from lyra_core.models import MODELS
from lyra_core.world_models.load import load_model
from lyra_core.world_models.protocol import WorldModel

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"


def test_from_photograph_to_rendered_world(tmp_path):
    model = lyra_core.load_model("parallax")
    progress = []
    clip = model.generate(
        SEEDS / "coffee_table.jpg", "dolly-in", num_frames=4, seed=3, width=160, height=96,
        on_frame=lambda done, wanted: progress.append((done, wanted)),
    )  # fmt: skip
    assert clip.frames.shape == (4, 96, 160, 3)
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert clip.cameras.name == "dolly-in"
    gaussians = model.reconstruct(clip)
    gaussians.save_ply(tmp_path / "world.ply")
    loaded = lyra_core.Gaussians.load_ply(tmp_path / "world.ply")
    drawn = lyra_core.render(loaded, clip.cameras)
    assert drawn.color.shape == (4, 96, 160, 3)
    assert float((drawn.color[1:] - clip.frames[1:].float() / 255).abs().mean()) < 0.01


def test_without_a_size_frames_are_native_and_turn_with_the_photograph():
    model = load_model("parallax")
    recipe = find_recipe("parallax")
    assert model.native.size == (416, 240) == (recipe.width, recipe.height)
    clip = model.generate(SEEDS / "coffee_table.jpg", "dolly-in", num_frames=1)
    assert clip.frames.shape == (1, 240, 416, 3)
    assert model.generate(SEEDS / "wine_cellar.jpg", "dolly-in", num_frames=1).frames.shape == (1, 416, 240, 3)
    with pytest.raises(FrameError, match="found no height; give both, or neither for 416x240"):
        model.generate(SEEDS / "coffee_table.jpg", "dolly-in", num_frames=1, width=416)
    with pytest.raises(FrameError, match="at least 16, found 8x240"):
        model.generate(SEEDS / "coffee_table.jpg", "dolly-in", num_frames=1, width=8, height=240)


def test_the_baseline_claims_no_metres():
    assert load_model("parallax").provenance.metric_scale_source == "relative"


def test_the_baseline_keeps_the_protocol():
    model = load_model("parallax")
    assert isinstance(model, WorldModel)
    assert model.name == "parallax"
    assert model.weights_digest
    estimator: DepthEstimator = load_model("parallax")
    estimate = estimator.estimate(torch.zeros(1, 96, 160, 3, dtype=torch.uint8), None)
    assert estimate.depth_m.isfinite().all()


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"parallax", "mini"}))
def test_a_model_without_its_weights_says_how_to_get_them(name, tmp_path):
    with pytest.raises(WeightsError, match=r"missing: (.|\n)*lyra weights fetch (.|\n)*lyra weights convert"):
        load_model(name, weights=tmp_path)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(RecipeError, match=r"unknown model 'lyra9'; choose one of: .*parallax"):
        load_model("lyra9")


def test_the_baseline_runs_on_a_gpu_worker_too():
    assert load_model("parallax", device="cuda").name == "parallax"


@pytest.mark.parametrize("name", ["nowhere:load", "lyra_core.world_models.load:nothing"])
def test_a_model_of_ones_own_that_cannot_be_imported(name):
    with pytest.raises(RecipeError, match="cannot import"):
        load_model(name)


def test_a_missing_photograph_is_a_seed_error(tmp_path):
    with pytest.raises(SeedError):
        load_model().generate(tmp_path / "absent.jpg", "dolly-in", num_frames=2)


def test_the_front_door_needs_neither_ray_nor_prefect():
    code = (
        "import sys, lyra_core.world_models.load, lyra_core.world_models.parallax; "
        "print('ray' in sys.modules or 'prefect' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
