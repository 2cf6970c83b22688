"""Hugging Face's `datasets` opens what a card lists: no column has a type it does not know."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalogs.compaction import compact
from lyra_core import snapshot
from lyra_core.formats.store import open_store
from lyra_core.records import arrow_schema


def test_worlds_and_frames_are_opened(tmp_path, sample, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="pip install datasets to check against Hugging Face's reader")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(Path(__file__).parent / "schema1", tmp_path / "worlds")
    store = open_store(tmp_path / "worlds", fsync=False)
    sample.commit_worlds(store, range(2))
    ref = compact(store)
    for table, record in snapshot.TABLES.items():
        parts = snapshot.files(store, ref, table)
        found = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(tmp_path / "cache"))
        assert found.column_names == arrow_schema(record).names
        assert len(found) == (ref.num_worlds if table == "worlds" else ref.num_frames)
    stages = snapshot.worlds(store)["stage_s"].to_pylist()
    assert all({item["stage"] for item in row} >= {"video", "gaussians"} for row in stages)
