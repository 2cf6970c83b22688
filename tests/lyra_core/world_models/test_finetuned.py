"""A generated world becomes training data, converted weights are tuned on it, and the model loads what came of it."""

from pathlib import Path

import pytest
import torch

from lyra_core.finetuning.clip_export import export_clip
from lyra_core.train_commands.app import main

pytestmark = pytest.mark.slow
OPTIONS = ("--device", "cpu", "--height", "48", "--width", "64", "--clip-frames", "17", "--steps", "2")


@pytest.fixture(scope="module")
def data(model, photo, tmp_path_factory):
    """A folder with one clip that the model generated."""
    folder = tmp_path_factory.mktemp("generated")
    clip = model.generate(photo, "dolly-in", num_frames=17, prompts=["a meadow"])
    export_clip(clip, folder, "world", {0: "a meadow", 9: "the path"})
    return folder


def tuned(data, weights, out, *more):
    assert main(["lyra2", "--data", str(data), "--weights", str(weights), "--out", str(out), *OPTIONS, *more]) == 0
    return out / "weights"


def chunk(model, photo):
    return model.generate(photo, "dolly-in", num_frames=9, prompts=["a meadow"]).frames


def test_tuned_weights_are_a_folder_for_recipes(data, weights, load, model, photo, tmp_path):
    folder = tuned(data, weights, tmp_path, "--learning-rate", "0.05")
    assert sorted(path.name for path in (tmp_path / "captions").iterdir())
    assert (folder / "lyra2-vae").resolve() == (weights / "lyra2-vae").resolve()
    assert not (folder / "lyra2-dit").is_symlink()
    own = load(weights=folder)
    assert own.weights_digest != model.weights_digest
    assert not torch.equal(chunk(own, photo), chunk(model, photo))


def test_a_tuned_lora_is_merged_by_name(data, weights, load, model, photo, tmp_path):
    folder = tuned(data, weights, tmp_path, "--lora", "2", "--lora-name", "lora-meadow", "--learning-rate", "0.05")
    plain = load(weights=folder)
    assert plain.weights_digest == model.weights_digest
    own = load(weights=folder, video={"loras": ["lora-meadow:1.0"]})
    assert not torch.equal(chunk(own, photo), chunk(model, photo))


def test_fewer_layers_are_enough_to_try(data, weights, tmp_path):
    folder = tuned(data, weights, tmp_path, "--layers", "1", "--freeze", "blocks.*.ffn.*", "head.*")
    assert '"num_layers": 1' in Path(folder / "lyra2-dit" / "manifest.json").read_text()
