"""Kills at any moment: the same command again, and the catalog holds every world exactly once."""

from __future__ import annotations

import os
import random
import signal
import time

import psutil
import pyarrow.parquet as pq
import pytest

from catalogs.commit import committed_ids
from catalogs.query import query
from lyra_core.formats.store import open_store

FAULT = (
    *("--recipe", "parallax"),
    *("--set", "model=fault_model:load", "--set", "artifacts=ply", "--set", "quality_views=0"),
    *("--set", "width=64", "--set", "height=48", "--workers", "2"),
)
NUM_WORLDS = 16


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_until_gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Workers that outlive the deadline; Ray's own agents hold no model and leave when they notice."""
    workers = [p for p in processes if p.is_running() and "_Actor" in " ".join(_command(p))]
    _, alive = psutil.wait_procs(workers, timeout=seconds)
    return alive


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_sigkill_of_the_driver_at_any_moment(lyra, make_seeds, tmp_path, kills):
    folder = make_seeds(*(f"slow{i:02d}.png" for i in range(NUM_WORLDS - 1)), "poison.png")
    out = tmp_path / "out"
    moments = random.Random(kills)
    lyra("up")
    for _ in range(kills):
        process = lyra.start("run", folder, "--out", out, "--json", *FAULT)
        time.sleep(moments.uniform(3, 12))
        family = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not wait_until_gone(family, 30), "workers outlived their driver"
    finished = lyra("run", folder, "--out", out, "--json", *FAULT)
    assert finished.code == 3, finished.err
    store = open_store(str(out))
    rows = query(store, "SELECT world_id, artifacts FROM worlds").to_pylist()
    assert len(rows) == len({row["world_id"] for row in rows}) == NUM_WORLDS - 1
    assert len(committed_ids(store)) == NUM_WORLDS - 1
    for row in rows:
        for artifact in row["artifacts"]:
            assert (out / artifact["key"]).stat().st_size == artifact["bytes"]
    reject = query(store, "SELECT seed_uri, stage FROM rejects").to_pylist()
    assert [(r["seed_uri"].rsplit("/", 1)[1], r["stage"]) for r in reject] == [("poison.png", "worker")]
    snapshots = sorted((out / "catalog" / "snapshots").glob("v*/worlds-*.parquet"))
    assert sum(pq.ParquetFile(part).metadata.num_rows for part in snapshots) >= NUM_WORLDS - 1


def test_control_c_frees_the_workers_and_exits_130(lyra, make_seeds, tmp_path):
    folder = make_seeds(*(f"slow{i:02d}.png" for i in range(40)))
    lyra("up")
    process = lyra.start("run", folder, "--out", tmp_path / "out", *FAULT)
    store = open_store(str(tmp_path / "out"))
    deadline = time.monotonic() + 90
    while not committed_ids(store) and time.monotonic() < deadline:
        time.sleep(0.3)
    family = children(process.pid)
    os.kill(process.pid, signal.SIGINT)
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again to continue" in err
    assert time.monotonic() - start < 30
    assert not wait_until_gone(family, 15), "workers outlived their driver"


@pytest.mark.slow  # workers die and start again
def test_workers_that_always_die_end_the_batch_with_exit_code_4_and_reject_nobody(lyra, make_seeds, tmp_path):
    dying = [word.replace("fault_model:load", "fault_model:load_dying") for word in FAULT]
    finished = lyra("run", make_seeds("a.png", "b.png"), "--out", tmp_path / "out", "--json", *dying)
    assert finished.code == 4, finished.err
    assert "no seed is to blame" in finished.json["error"]["message"]
    assert query(open_store(str(tmp_path / "out")), "SELECT * FROM rejects").num_rows == 0


@pytest.mark.slow
def test_models_that_do_not_load_end_the_batch_with_the_cause(lyra, make_seeds, tmp_path):
    broken = [word.replace("fault_model:load", "fault_model:load_broken") for word in FAULT]
    finished = lyra("run", make_seeds("a.png"), "--out", tmp_path / "out", *broken)
    assert finished.code == 4
    assert "the weights are on a disk that is gone" in finished.err


@pytest.mark.parametrize("where", ["file", "readonly"])
def test_an_output_that_cannot_be_written_is_told_before_anything_starts(lyra, make_seeds, tmp_path, where):
    out = tmp_path / "blocked"
    out.write_text("a file where a folder should be")
    target = out if where == "file" else "/proc/worlds"
    finished = lyra("run", make_seeds("a.png"), "--out", target, *FAULT)
    assert finished.code == 1
    assert str(target) in finished.err
