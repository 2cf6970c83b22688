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
def keys_dir(golden_dir):
    return golden_dir / "released_keys"


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


@pytest.mark.parametrize(
    "name", ["da3-small", "da3-base", "da3-large", "da3metric-large", "da3nested-giant-large"]
)
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
