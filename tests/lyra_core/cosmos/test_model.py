"""The world model as the factory sees it, on tiny weights."""

import pytest
import torch

from lyra_core.errors import FrameError, RecipeError, WeightsError
from lyra_core.gaussians.prune import is_finite
from lyra_core.models import MODELS
from lyra_core.world_models.load import load_model
from lyra_core.world_models.protocol import WorldModel

COSMOS = {"chunk_frames": 4, "num_steps": 1, "transformer_dtype": "float32", "vae_dtype": "float32"}
RECONSTRUCTION = {"tier": 1500, "color_passes": 1}
PHOTO = "examples/seeds/coffee_table.jpg"


@pytest.fixture(scope="module")
def model(weights):
    return load_model("cosmos3-nano", weights=weights, cosmos=COSMOS, reconstruction=RECONSTRUCTION)


@pytest.fixture(scope="module")
def photo(request):
    return request.config.rootpath / PHOTO


pytestmark = pytest.mark.filterwarnings("ignore:the camera moves:lyra_core.errors.LyraWarning")
"""Random depth has any scale."""


def test_from_a_photograph_to_a_clip(model, photo, tmp_path):
    assert isinstance(model, WorldModel)
    done = []
    clip = model.generate(
        photo,
        "truck-right",
        num_frames=9,
        prompts=["a table"],
        width=320,
        height=192,
        chunk_dir=tmp_path,
        on_frame=lambda *frames: done.append(frames),
    )
    assert clip.frames.shape == (9, 192, 320, 3)
    assert done == [(5, 9), (9, 9)]
    shorter = model.generate(photo, "truck-right", prompts=["a table"], width=320, height=192)
    assert torch.equal(shorter.frames, clip.frames[:5]), "ids of a call without a plan chain over chunks too"


@pytest.mark.slow
def test_from_a_clip_to_gaussians(model, photo, tmp_path):
    clip = model.generate(photo, "truck-right", num_frames=5, prompts=["a table"], width=320, height=192)
    reports = []
    gaussians = model.reconstruct(clip, chunk_dir=tmp_path, on_report=reports.append)
    assert is_finite(gaussians).all()
    assert reports[0].lifter.startswith("depth-")


def test_what_it_says_of_itself(model):
    assert model.provenance.precision == "float32"
    assert (model.provenance.num_steps, model.provenance.guidance) == (1, 1.0)
    assert model.provenance.metric_scale_source == "depth_model"
    assert model.native.chunk_frames == 4
    assert model.native.size == MODELS["cosmos3-nano"].native.size


def test_sizes_off_the_canvas_and_counts_off_the_rule(model, photo):
    with pytest.raises(FrameError, match=r"found 848x480; the nearest are 1280x720, .*832x480"):
        model.generate(photo, "dolly-in", width=848, height=480)
    with pytest.raises(FrameError, match=r"1 \+ 4k frames, found 7; the nearest are 5 and 9"):
        model.generate(photo, "dolly-in", num_frames=7, width=320, height=192)


def test_choices_that_are_none(weights, tmp_path):
    with pytest.raises(RecipeError, match=r"cosmos\.steps is unknown"):
        load_model("cosmos3-nano", weights=weights, cosmos={"steps": 3})
    with pytest.raises(WeightsError, match=r"missing: cosmos3-super\b(.|\n)*lyra weights fetch cosmos3-super"):
        load_model("cosmos3-super", weights=weights)
    with pytest.raises(WeightsError, match=r"captioner: wanted 'manifest' or the folder of .*found 'nowhere'"):
        load_model("cosmos3-nano", weights=weights, cosmos={**COSMOS, "captioner": "nowhere"})
    with pytest.raises(WeightsError, match=r"a folder of converted weights, found a file; point the recipe at"):
        load_model("cosmos3-nano", weights=weights / "cosmos3-nano" / "manifest.json")


def test_depth_of_the_photograph_is_looked_at_once(model, photo, tmp_path):
    first, second = (
        model.generate(photo, "pan-left", num_frames=5, prompts=[""], width=320, height=192, chunk_dir=tmp_path)
        for _ in range(2)
    )
    assert torch.equal(first.frames, second.frames)
    assert (tmp_path / "video" / "seed.safetensors").exists()
