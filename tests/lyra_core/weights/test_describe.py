"""What our modules ask for is exactly what the published files hold."""

import json
import re

import pytest
import torch

from lyra_core.errors import WeightsError
from lyra_core.weights.describe import BUILDERS, build_on_meta, describe, summary
from lyra_core.weights.keys import RULES, map_keys

COUNTERS = {
    "accum_video_sample_counter",
    "accum_image_sample_counter",
    "accum_iteration",
    "accum_train_in_hours",
}


def released(path):
    """Shapes by name; {0..39} in a name stands for one key per block."""
    shapes = {}
    for name, shape in json.loads(path.read_text())["keys"].items():
        block = re.search(r"\{(\d+)\.\.(\d+)\}", name)
        numbers = range(int(block[1]), int(block[2]) + 1) if block else [None]
        for number in numbers:
            key = name if number is None else name.replace(block[0], str(number))
            shapes[key] = tuple(shape)
    return shapes


def listed(path):
    lines = (line.split(" ", 1) for line in path.read_text().splitlines())
    return {name: tuple(int(size) for size in re.findall(r"\d+", shape)) for name, shape in lines}


@pytest.fixture
def keys_dir(released_dir):
    return released_dir / "released_keys"


def test_video_transformer(keys_dir):
    """The released file also holds four training counters, which loading leaves out."""
    wanted = released(keys_dir / "lyra2-dit.json")
    description = describe("lyra2-dit")
    assert {**description.shapes, **dict.fromkeys(COUNTERS, ())} == wanted
    assert len(wanted) == 1439
    assert description.parameters == 17_029_871_424
    assert set(map_keys([f"net.{key}" for key in wanted], RULES["lyra2-dit"]).ignored) == {
        f"net.{key}" for key in COUNTERS
    }


@pytest.mark.parametrize("name", ["lyra2-vae", "wan-vae"])
def test_autoencoder(keys_dir, name):
    description = describe(name)
    assert description.shapes == released(keys_dir / "wan-vae.json")
    assert description.parameters == 126_892_531


@pytest.mark.parametrize("name", ["lyra2-text", "wan-text"])
def test_text_encoder(name):
    """Names of the published file, written out: 24 blocks of width 4096."""
    wide, narrow = (10240, 4096), (4096, 10240)
    block = {
        **{f"attn.{part}.weight": (4096, 4096) for part in "qkvo"},
        "ffn.gate.0.weight": wide,
        "ffn.fc1.weight": wide,
        "ffn.fc2.weight": narrow,
        "norm1.weight": (4096,),
        "norm2.weight": (4096,),
        "pos_embedding.embedding.weight": (32, 64),
    }
    description = describe(name)
    assert description.shapes == {
        "token_embedding.weight": (256384, 4096),
        "norm.weight": (4096,),
        **{f"blocks.{i}.{key}": shape for i in range(24) for key, shape in block.items()},
    }
    assert round(description.parameters / 1e9, 2) == 5.68


@pytest.mark.parametrize("name", ["lyra2-image", "wan-image"])
def test_image_encoder(name):
    """Names of the published file, written out; what the model does not read is left out on
    loading."""
    pair = lambda key, *shape: {f"{key}.weight": shape, f"{key}.bias": shape[:1]}  # noqa: E731
    block = {
        **pair("norm1", 1280), **pair("attn.to_qkv", 3840, 1280), **pair("attn.proj", 1280, 1280),
        **pair("norm2", 1280), **pair("mlp.0", 5120, 1280), **pair("mlp.2", 1280, 5120),
    }  # fmt: skip
    tower = {
        "patch_embedding.weight": (1280, 3, 14, 14), "cls_embedding": (1, 1, 1280),
        "pos_embedding": (1, 257, 1280),
        **pair("pre_norm", 1280), **pair("post_norm", 1280), "head": (1280, 1024),
        **{f"transformer.{i}.{key}": shape for i in range(32) for key, shape in block.items()},
    }  # fmt: skip
    published = [f"visual.{key}" for key in tower] + ["textual.token_embedding.weight", "log_scale"]
    used = map_keys(published, RULES["clip"]).names.values()
    assert describe(name).shapes == {key: tower[key] for key in used}
    assert len(published) - len(used) == 2 + 3 + len(block)


@pytest.mark.parametrize("name", ["da3-small", "da3-base", "da3-large", "da3metric-large", "da3nested-giant-large"])
def test_depth_anything(keys_dir, name):
    assert describe(name).shapes == listed(keys_dir / f"{name}.txt")


def test_reconstruction_fine_tuned_for_lyra_has_the_nested_architecture(keys_dir):
    assert describe("lyra2-recon").shapes == listed(keys_dir / "da3nested-giant-large.txt")


@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_is_allocated(name):
    module = build_on_meta(name)
    assert all(parameter.device == torch.device("meta") for parameter in module.parameters())


def test_summary_groups_blocks():
    lines = summary("da3-small")
    assert "backbone.pretrained.blocks.{0..11}.norm1.weight 384" in lines
    assert lines[-1] == "443 tensors, 34,299,655 parameters"
    assert len(lines) < 200


@pytest.mark.parametrize("name", ["lora-dmd", "umt5-tokenizer", "nonsense"])
def test_sets_without_a_model_are_refused(name):
    with pytest.raises(WeightsError, match=name):
        describe(name)
