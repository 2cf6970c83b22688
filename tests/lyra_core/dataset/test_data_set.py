"""lyra dataset (tasks/data_set.py): many stored worlds as one LeRobot data set or as WebDataset shards."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli import _exit_code
from lyra_core.dataset import open_dataset
from lyra_core.errors import MissingExtraError, StoreError
from lyra_core.extras import is_installed
from tasks.data_set import write_data_set


def test_worlds_become_episodes(worlds, tmp_path, capsys):
    to = tmp_path / "set"
    assert _exit_code(["dataset", worlds, "--format", "lerobot", "--to", str(to), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(to), "worlds": 3, "frames": 180}
    rows = pq.read_table(to / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert [row["world_id"][0] for row in rows] == ["a", "b", "c"]  # d is not accepted
    assert all(row["meters_per_unit"] is None for row in rows)
    (stored,) = Path(worlds).glob("worlds/aa/*/*/video.mp4")
    (copied,) = to.glob("videos/*/chunk-000/file-000.mp4")
    assert copied.read_bytes() == stored.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_worlds_become_shards_from_a_bucket(away, tmp_path):
    chosen = open_dataset(away).only(["a" * 32, "d" * 32])
    written = write_data_set(chosen, "webdataset", tmp_path / "shards", depth=False)
    assert (written.worlds, written.frames) == (2, 120)
    with tarfile.open(tmp_path / "shards" / "shard-000000.tar") as tar:
        assert len(tar.getnames()) == 2 * 120


def test_worlds_become_recordings(worlds, tmp_path):
    chosen = open_dataset(worlds).only(["a" * 32])
    if not is_installed("rerun"):
        with pytest.raises(MissingExtraError, match=r"lyra-worlds\[rerun\]"):
            write_data_set(chosen, "rerun", tmp_path / "set")
        return
    write_data_set(chosen, "rerun", tmp_path / "set", depth=False)
    assert (tmp_path / "set" / f"{'a' * 32}.rrd").read_bytes()[:4] == b"RRF2"


def test_what_exists_is_not_touched(worlds, tmp_path, capsys):
    with pytest.raises(StoreError, match="does not exist yet"):
        write_data_set(open_dataset(worlds), "lerobot", tmp_path)
    assert _exit_code(["dataset", worlds, "--format", "hdf5", "--to", str(tmp_path / "x")]) == 2
    assert "lerobot, webdataset, rerun" in capsys.readouterr().err
    assert _exit_code(["dataset", worlds, "--format", "lerobot", "--to", str(tmp_path / "x"), "--where", "false"]) == 1
    assert not list(tmp_path.iterdir())
