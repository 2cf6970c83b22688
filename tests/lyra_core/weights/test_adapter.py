"""Every format gives the same tensors under the same names, and nothing that does not fit is
loaded."""

import argparse
import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from lyra_core.errors import StateDictError, WeightsError
from lyra_core.weights.adapter import DtypePolicy, load_into, open_weights
from lyra_core.weights.keys import RULES, group_keys, map_keys
from lyra_core.weights.shards import list_safetensors, plan_shards, write_safetensors


def save_sharded(state, directory):
    directory.mkdir()
    names = sorted(state)
    parts = {
        "a-00001-of-00002.safetensors": names[::2],
        "a-00002-of-00002.safetensors": names[1::2],
    }
    for file, keys in parts.items():
        save_file({key: state[key].contiguous() for key in keys}, directory / file)
    homes = {key: file for file, keys in parts.items() for key in keys}
    (directory / "a.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    return directory


@pytest.fixture
def written(request, tmp_path, toy_state, save_distributed):
    """The toy's state dict in one of the formats."""
    if request.param == "safetensors":
        save_file(toy_state, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"
    if request.param == "sharded":
        return save_sharded(toy_state, tmp_path / "shards")
    if request.param == "dcp":
        return save_distributed(toy_state, tmp_path / "dcp")
    if request.param == "dcp, one level down":
        save_distributed(toy_state, tmp_path / "outer" / "model")
        return tmp_path / "outer"
    wrapped = {
        "pth": toy_state,
        "pth with prefix": {f"module.net.{name}": tensor for name, tensor in toy_state.items()},
        "pth wrapped": {
            "module": {f"model.{name}": t for name, t in toy_state.items()},
            "epoch": 3,
        },
        "pth beside an optimizer": {
            "args": argparse.Namespace(lr=0.1, tags={"a"}),
            "random": np.random.default_rng(0).bit_generator.random_raw(3),
            "loss": np.float64(0.5),
            "counts": defaultdict(dict, a=1),
            "model": {**toy_state, "blocks.0.attn._extra_state": None},
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        },
    }[request.param]
    torch.save(wrapped, tmp_path / "w.pth")
    return tmp_path / "w.pth"


FORMATS = [
    "safetensors", "sharded", "dcp", "dcp, one level down", "pth", "pth with prefix", "pth wrapped",
    "pth beside an optimizer",
]  # fmt: skip


@pytest.mark.parametrize("written", FORMATS, indirect=True)
def test_every_format_loads_bit_exact_into_a_meta_module(written, toy, meta_toy, require_same):
    weights = open_weights(written)
    load_into(meta_toy, weights)
    require_same(meta_toy.state_dict(), toy.state_dict())
    frames = torch.randn(1, 2, 1, 4, 4, dtype=torch.bfloat16)
    assert torch.equal(meta_toy.patch(frames), toy.patch(frames))


def test_loading_does_not_copy_where_it_need_not(tmp_path, toy_state, meta_toy):
    """Workers on one machine share the file's pages; writing to a tensor leaves the file alone."""
    save_file(toy_state, tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    load_into(meta_toy, open_weights(tmp_path / "w.safetensors"))
    with torch.no_grad():
        meta_toy.norm.weight.fill_(0)
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_dtype_policy(tmp_path, toy_state, meta_toy):
    save_file(toy_state, tmp_path / "w.safetensors")
    policy = DtypePolicy(dtype=torch.float16, float32=("norm.*", "*.ffn.2.bias"))
    load_into(meta_toy, open_weights(tmp_path / "w.safetensors"), dtype=policy)
    kinds = {name: tensor.dtype for name, tensor in meta_toy.state_dict().items()}
    assert kinds["norm.weight"] == kinds["blocks.1.ffn.2.bias"] == torch.float32
    assert kinds["patch.weight"] == kinds["blocks.0.q.bias"] == torch.float16
    assert kinds["steps"] == torch.int64


def test_plain_dictionaries_load_too(toy_state, meta_toy, require_same):
    load_into(meta_toy, toy_state)
    require_same(meta_toy.state_dict(), toy_state)


def changed(state, change):
    state = dict(state)
    if change == "missing":
        del state["blocks.0.q.weight"], state["blocks.1.q.weight"], state["norm.bias"]
    elif change == "extra":
        state["blocks.0.new.weight"] = torch.ones(2)
    elif change == "renamed":
        state["blocks.0.query.weight"] = state.pop("blocks.0.q.weight")
    elif change == "wrong shape":
        state["blocks.1.ffn.0.weight"] = torch.ones(10, 7)
    return state


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ("missing", ["3 missing", "blocks.{0..1}.q.weight [6 6]", "norm.bias [6]"]),
        ("extra", ["1 unexpected", "blocks.0.new.weight [2]"]),
        ("renamed", ["1 missing", "1 unexpected", "blocks.0.query.weight", "blocks.0.q.weight"]),
        ("wrong shape", ["1 of wrong shape", "blocks.1.ffn.0.weight should be [10 6], is [10 7]"]),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path, toy_state, meta_toy, change, messages):
    torch.save(changed(toy_state, change), tmp_path / "w.pth")
    with pytest.raises(StateDictError) as caught:
        load_into(meta_toy, open_weights(tmp_path / "w.pth"))
    for message in messages:
        assert message in str(caught.value)
    assert all(parameter.is_meta for parameter in meta_toy.parameters())


def test_long_lists_are_cut_with_a_count(toy_state, meta_toy):
    strangers = {f"stranger_{chr(97 + i)}": torch.ones(1) for i in range(26)}
    with pytest.raises(StateDictError, match=r"26 unexpected(?s:.*)and 14 more groups"):
        load_into(meta_toy, {**toy_state, **strangers})


def test_values_that_are_no_tensors_are_refused(tmp_path, toy_state):
    torch.save({**toy_state, "blocks.0.scale": 3.0}, tmp_path / "w.pth")
    with pytest.raises(StateDictError, match=r"no tensors(?s:.*)blocks.0.scale"):
        open_weights(tmp_path / "w.pth")


def test_a_key_given_twice_is_refused(tmp_path):
    """Once flat and once nested: which one counts would be a guess."""
    torch.save({"a": {"w": torch.ones(1)}, "a.w": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(StateDictError, match=r"twice(?s:.*)a\.w"):
        open_weights(tmp_path / "w.pth")


def test_a_buffer_no_key_fills_is_reported(toy_state):
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.register_buffer("table", torch.ones(3), persistent=False)

    with torch.device("meta"):
        module = Table()
    with pytest.raises(StateDictError, match=r"without content(?s:.*)table"):
        load_into(module, {"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)})


RELEASED = {
    "lyra2-dit": (
        [
            "net.blocks.0.q.weight",
            "net_ema.blocks.0.q.weight",
            "net.accum_iteration",
            "net.x.attn_op._extra_state",
        ],
        ["blocks.0.q.weight"],
    ),
    "clip": (
        [
            "visual.pre_norm.bias",
            "visual.transformer.30.mlp.0.bias",
            "visual.transformer.31.mlp.0.bias",
            "visual.post_norm.bias",
            "visual.head",
            "textual.head.0.weight",
            "log_scale",
        ],
        ["pre_norm.bias", "transformer.30.mlp.0.bias"],
    ),
    "da3": (["model.da3.head.norm.bias", "optimizer_step"], ["da3.head.norm.bias"]),
    "wan-vae": (["encoder.conv1.weight"], ["encoder.conv1.weight"]),
    "umt5": (["blocks.0.norm1.weight", "norm.weight"], ["blocks.0.norm1.weight", "norm.weight"]),
}


@pytest.mark.parametrize("kind", RELEASED)
def test_released_keys_become_module_keys(kind):
    released, wanted = RELEASED[kind]
    mapped = map_keys(released, RULES[kind])
    assert list(mapped.names.values()) == wanted
    assert {*mapped.names, *mapped.ignored} == {*released}
    # a converted file, whose keys are module keys already, is left alone
    assert list(map_keys(wanted, RULES[kind]).names.values()) == wanted


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_safetensors_are_refused(tmp_path, toy_state, share):
    save_file(toy_state, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        open_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}},
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        },
        {"a": 3},
        [1],
    ],
)
def test_malformed_safetensors_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    with pytest.raises(WeightsError):
        list_safetensors(tmp_path / "w.safetensors")


def test_a_missing_shard_is_named(tmp_path, toy_state):
    directory = save_sharded(toy_state, tmp_path / "shards")
    (directory / "a-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match="lacks 1 of 2 shards: a-00002-of-00002"):
        open_weights(directory)


def test_index_and_shards_must_agree(tmp_path, toy_state):
    directory = save_sharded(toy_state, tmp_path / "shards")
    index = directory / "a.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "a-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="ghost"):
        open_weights(directory)


def test_missing_and_ambiguous_places_say_what_is_wanted(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        open_weights(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"found 0 \.safetensors"):
        open_weights(tmp_path)
    with pytest.raises(WeightsError, match="known are"):
        open_weights(tmp_path, "kind-x")


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool])


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,4}(\.[a-z0-9]{1,3}){0,2}", fullmatch=True),
        st.tuples(shapes, dtypes),
        min_size=1,
        max_size=6,
    )
)
def test_our_safetensors_are_everyones_safetensors(tmp_path_factory, specs):
    """Ours and the library's reader and writer agree, in both directions."""
    folder = tmp_path_factory.mktemp("st")
    generator = torch.Generator().manual_seed(len(specs))
    state = {name: torch.randint(0, 2, shape, generator=generator).to(dtype) for name, (shape, dtype) in specs.items()}
    save_file(state, folder / "theirs.safetensors")
    (shard,) = plan_shards(list_safetensors(folder / "theirs.safetensors"), 10**9)
    write_safetensors(folder / "ours.safetensors", shard)
    for found in (
        load_file(folder / "ours.safetensors"),
        dict(open_weights(folder / "ours.safetensors", "wan-vae")),
    ):
        assert set(found) == set(state)
        assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)


def test_keys_are_grouped_by_block():
    keys = [*(f"blocks.{i}.q.weight" for i in (0, 1, 2, 5)), "norm.weight"]
    assert group_keys(keys) == ["blocks.{0..2,5}.q.weight", "norm.weight"]
    assert group_keys(keys, {"blocks.1.q.weight": "odd"}) == [
        "blocks.{0,2,5}.q.weight", "blocks.1.q.weight odd", "norm.weight"
    ]  # fmt: skip
