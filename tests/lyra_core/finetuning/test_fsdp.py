"""Two processes over gloo, each with half of every parameter, train what one process trains."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lyra_core.errors import StateDictError
from lyra_core.finetuning.clip_samples import ClipSamples, SampleConfig
from lyra_core.finetuning.dataset import OwnClips
from lyra_core.finetuning.fsdp import fill, part_of
from lyra_core.finetuning.networks import TrainedPart, build_debug
from lyra_core.world_models.networks import load_dit

SCRIPT = Path(__file__).with_name("two_processes.py")
REPOSITORY = Path(__file__).resolve().parents[3]


def script():
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def both(clip_data, tmp_path_factory):
    """The folder two processes left behind, and the samples they all trained on."""
    torch.set_num_threads(1)
    out, module, trained = tmp_path_factory.mktemp("two"), script(), build_debug(TrainedPart(), "cpu")
    samples = ClipSamples(OwnClips(clip_data, (32, 48)), module.maker_of(trained), SampleConfig(clip_frames=17), "cpu")
    rows = samples.rows(0, lambda rows: rows.target)
    samples.close()
    torch.save({name: getattr(rows, name) for name in rows.__dataclass_fields__}, out / "rows.pt")
    in_two_processes("rows", out / "rows.pt", out)
    return out, rows


def in_two_processes(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    done = subprocess.run(
        [*command, *(str(argument) for argument in arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_two_processes_agree_with_one(both, kind, tmp_path):
    out, rows = both
    losses, values = script().run(kind, rows, tmp_path, config=replace(script().CONFIG, steps=2))
    assert json.loads((out / f"{kind}.json").read_text()) == pytest.approx(losses, rel=1e-5)
    assert losses[1] != losses[0]
    found = torch.load(out / f"{kind}.pt", weights_only=True)
    assert found.keys() == values.keys()
    for name, value in values.items():
        # Adam divides by the gradient's size: where it is as small as its rounding, values may differ by a step
        torch.testing.assert_close(found[name], value, atol=3e-4, rtol=1e-4, msg=name)


def test_one_process_goes_on_where_two_stopped(both, tmp_path):
    out, rows = both
    losses, _ = script().run("whole", rows, tmp_path / "alone")
    resumed, _ = script().run("whole", rows, tmp_path / "resumed", resume_from=out / "whole" / "checkpoint")
    assert resumed == pytest.approx(losses[2:], rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_on_files(clip_data, tmp_path):
    in_two_processes("files", clip_data, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["gradient_norm"] > 0 for row in rows)
    before, after = (
        build_debug(TrainedPart(), "cpu").networks.dit,
        load_dit(tmp_path / "weights" / "lyra2-dit", "cpu"),
    )
    moved = [n for n, p in after.named_parameters() if not torch.equal(p, before.get_parameter(n).bfloat16().float())]
    assert len(moved) > 0.9 * len(list(before.parameters()))
    assert json.loads((tmp_path / "state.json").read_text())["processes"] == 2


@given(st.integers(1, 9), st.integers(1, 5))
def test_parts_make_the_whole(rows, count):
    whole = torch.arange(rows * 2).view(rows, 2)
    assert torch.equal(torch.cat([part_of(whole, count, rank) for rank in range(count)]), whole)


def test_weights_that_do_not_fit_are_refused():
    dit = build_debug(TrainedPart(), "cpu").networks.dit
    tensors = {name: parameter.detach() for name, parameter in dit.named_parameters()}
    tensors.pop("head.head.bias")
    with pytest.raises(StateDictError, match=r"head\.head\.bias"):
        fill(dit, tensors)
