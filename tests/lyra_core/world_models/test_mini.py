"""The embedded model as the factory meets it: found by name, identified without torch, used through the same class."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flows.recipes import find_recipe
from lyra_core.errors import WeightsError
from lyra_core.mini.files import load_mini_depth
from lyra_core.mini.manifest import mini_digest
from lyra_core.models import MODELS
from lyra_core.precision import choose_dtype
from lyra_core.video.captions import NoCaptions
from lyra_core.world_models.generative import GenerativeModel
from lyra_core.world_models.load import load_model
from lyra_core.world_models.mini import load_mini_model

REPOSITORY = Path(__file__).resolve().parents[3]


def test_it_is_found_by_name_and_known_by_its_files():
    model = load_model("mini", video={"num_steps": 2}, reconstruction={"tier": "100k"})
    assert isinstance(model, GenerativeModel)
    assert (model.name, model.weights_digest) == ("mini", mini_digest())
    assert model.parts.config.num_steps == 2


def test_its_own_size_rule_and_words_are_those_of_its_recipe():
    model, recipe = load_model(), find_recipe("mini")
    assert model.name == "mini"
    assert model.native == MODELS["mini"].native
    assert model.native.size == (recipe.width, recipe.height)
    assert model.native.prompt == recipe.prompt
    assert (model.native.chunk_frames, model.native.min_side) == (80, 32)
    found = model.provenance
    assert (found.num_steps, found.guidance, found.negative_prompt) == (4, 1.0, None)
    assert found.precision == str(choose_dtype("auto", "cpu")).removeprefix("torch.")
    assert load_model("mini", precision="float32").provenance.precision == "float32"


def test_given_ids_stand_for_words_already(monkeypatch):
    """A batch hashes its captions into the ids it gives; the model's own words must not slip in under them."""
    model, asked = load_model(), []

    def run(seed, cameras, captions, *rest, **options):
        asked.append(captions)
        raise InterruptedError("asked enough")

    monkeypatch.setattr(model.rollout, "run", run)
    picture = torch.full((128, 224, 3), 90, dtype=torch.uint8)
    for words in ({}, {"chunk_ids": ["1" * 32]}, {"prompts": ["a room"]}):
        with pytest.raises(InterruptedError):
            model.generate(picture, "dolly-in", **words)
    assert (asked[0], asked[2]) == (["a place"], ["a room"])
    assert isinstance(asked[1], NoCaptions)


def test_planning_knows_its_weights_without_torch():
    code = (
        "import sys; from flows.recipes import find_recipe; from tasks.weights import weights_digests; "
        "print(weights_digests(find_recipe('mini'))[0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [mini_digest(), "False"]


def test_depth_is_finite_on_a_picture():
    model = load_mini_depth()
    from lyra_core.mini.depth_estimator import MiniDepthEstimator

    rows = torch.linspace(0, 255, 128)[:, None, None].expand(128, 224, 3).to(torch.uint8)
    found = MiniDepthEstimator(model).estimate(rows[None].contiguous(), None)
    assert torch.isfinite(found.depth_m).all()
    assert found.depth_m.shape == (1, 128, 224)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"mini\.json"):
        load_mini_model(weights=tmp_path)
