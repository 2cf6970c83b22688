"""A generated world becomes training data, converted weights are tuned on it, and the model loads what came of it."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lyra_core.finetuning.clip_export import export_clip
from lyra_core.train_commands.app import main
from lyra_core.weights.adapter import open_weights
from lyra_core.weights.convert import Labels, convert
from lyra_core.weights.manifest import read_manifest

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
    folder = tuned(data, weights, tmp_path, "--layers", "1", "--freeze", "blocks.*.ffn.*", "--freeze", "head.*")
    assert '"num_layers": 1' in Path(folder / "lyra2-dit" / "manifest.json").read_text()


def test_training_begins_with_wan(data, weights, tiny_weights, load, tmp_path):
    """A folder with Wan's transformer, whose patch embedding is a convolution, in the place of the released one."""
    sets, raw = tmp_path / "sets", tmp_path / "wan.safetensors"
    sets.mkdir()
    for home in weights.iterdir():
        if home.name != "lyra2-dit":
            (sets / home.name).symlink_to(home)
    released = dict(open_weights(weights / "lyra2-dit"))
    shared = {n: t.contiguous() for n, t in released.items() if "_encoder." not in n and "clean_patch" not in n}
    shared["patch_embedding.weight"] = shared["patch_embedding.weight"].unflatten(1, (-1, 1, 2, 2)).contiguous()
    save_file({n: t for n, t in shared.items() if not n.startswith("accum_")}, raw)
    config = asdict(replace(tiny_weights.DIT, layout=tiny_weights.SHORT))
    convert(
        raw, sets / "wan-i2v-14b", "wan-dit", labels=Labels(name="wan-i2v-14b", config=config, license="apache-2.0")
    )
    folder = tuned(data, sets, tmp_path / "run", "--init-from-wan", "--learning-rate", "1e-9")
    made = open_weights(folder / "lyra2-dit")
    assert read_manifest(folder / "lyra2-dit").license == "apache-2.0"
    assert torch.equal(made["head.head.weight"], released["head.head.weight"].to(torch.bfloat16))
    assert float(made["blocks.0.cam_encoder.weight"].abs().max()) < 1e-6
    assert len(load(weights=folder).weights_digest) == 64
