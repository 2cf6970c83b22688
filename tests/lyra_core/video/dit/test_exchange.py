"""Two and three processes over gloo compute what one process computes, whatever does not divide."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lyra_core.video.dit.exchange import Share, Spread, even_parts

SCRIPT = Path(__file__).with_name("share_processes.py")
REPOSITORY = Path(__file__).resolve().parents[4]


def errors_of(count, out):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*command, str(SCRIPT), str(out)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_agree_with_one(count, tmp_path):
    by_process = errors_of(count, tmp_path / "errors.json")
    assert len(by_process) == count
    for errors in by_process:
        assert len(errors) == 24
        assert max(errors.values()) < 1e-5, errors


@given(total=st.integers(0, 60), count=st.integers(1, 9))
def test_parts_are_even_and_whole(total, count):
    parts = even_parts(total, count)
    assert len(parts) == count
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@given(num_history=st.integers(0, 20), num_generated=st.integers(1, 20), size=st.integers(1, 5))
def test_every_token_has_one_home(num_history, num_generated, size):
    tokens = torch.arange(num_history + num_generated)[None, :, None]
    spreads = [Spread.over(Share(group="0", rank=rank, size=size), num_history, num_generated) for rank in range(size)]
    own = [spread.own(tokens) for spread in spreads]
    assert sorted(torch.cat(own, dim=1).flatten().tolist()) == tokens.flatten().tolist()
    assert [part.shape[1] for part in own] == spreads[0].answering()
    generated = [part[:, part.shape[1] - spread.num_generated :] for part, spread in zip(own, spreads, strict=True)]
    assert torch.equal(torch.cat(generated, dim=1), tokens[:, num_history:]), "generated tokens stay in their order"


def test_a_process_without_a_group_is_told_what_is_missing():
    with pytest.raises(RuntimeError, match="init_process_group"):
        Share.of()
