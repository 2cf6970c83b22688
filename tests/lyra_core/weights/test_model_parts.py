"""The parts of whole models: all that is loaded, with sums that are those of the files."""

from __future__ import annotations

import pytest
from safetensors import safe_open

from lyra_core.errors import WeightsError
from lyra_core.mini.manifest import MINI_FOLDER, read_components
from lyra_core.weights.bundle import PARTS
from lyra_core.weights.describe import describe
from lyra_core.weights.model_parts import describe_model, model_summary


def test_lyra2():
    found = describe_model("lyra2")
    by_role = {part.role: part for part in found.parts}
    assert [part.role for part in found.parts if not part.is_optional] == [part.role for part in PARTS["lyra2"]]
    assert {part.set for part in found.parts if part.is_optional} == {
        *("lora-realism-boost", "lora-detail-enhancer", "lora-dmd"),
    }
    assert by_role["dit"].parameters == 17_029_871_424
    assert by_role["vae"].alternatives == ("wan-vae",)
    networks = ("lyra2-dit", "lyra2-vae", "lyra2-text", "lyra2-image", "lyra2-recon")
    assert found.parameters == sum(describe(name).parameters for name in networks)
    assert found.tensors == sum(len(describe(name).tensors) for name in networks)
    assert (by_role["tokenizer"].parameters, by_role["negative prompt"].parameters) == (None, None)


def test_parallax_da3():
    found = describe_model("parallax-da3")
    assert [(part.role, part.set) for part in found.parts] == [
        ("depth", "da3-base"),
        ("metric depth", "da3metric-large"),
    ]
    assert {part.license for part in found.parts} == {"apache-2.0"}
    assert found.parameters == describe("da3-base").parameters + describe("da3metric-large").parameters


def test_mini_has_what_its_files_have():
    found = describe_model("mini")
    tensors = parameters = 0
    for component in read_components().values():
        for name in component.files:
            with safe_open(MINI_FOLDER / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - the file is no mapping
                    size = 1
                    for length in file.get_slice(key).get_shape():
                        size *= length
                    tensors, parameters = tensors + 1, parameters + size
    assert (found.tensors, found.parameters) == (tensors, parameters)
    assert [part.role for part in found.parts] == ["dit", "vae", "text", "image", "depth"]


def test_lines_for_people_end_with_the_totals():
    lines = model_summary("mini")
    assert lines[-1] == f"{describe_model('mini').tensors:,} tensors, {describe_model('mini').parameters:,} parameters"


def test_models_without_weights_are_refused():
    with pytest.raises(
        WeightsError, match=r"parallax is no model with weights; those are lyra2, parallax-da3, cosmos3-nano, .*mini"
    ):
        describe_model("parallax")
