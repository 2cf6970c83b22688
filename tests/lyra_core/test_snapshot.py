"""Snapshots are read as they were, or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from catalogs.compaction import compact
from lyra_core import snapshot
from lyra_core.errors import CatalogError
from lyra_core.formats.store import open_store
from lyra_core.frame_table import frame_table
from lyra_core.layout import snapshot_key
from lyra_core.records import FrameRecord, WorldRecord, arrow_schema


@pytest.fixture
def store(tmp_path):
    """Two versions: one world, then two."""
    from catalogs.commit import commit

    store = open_store(tmp_path, fsync=False)
    for digit in "ab":
        frames = frame_table(digit * 32, np.eye(4)[None], np.eye(3)[None], fps=16.0, image_size=(832, 480))
        commit(store, WorldRecord(world_id=digit * 32, psnr_db=float(ord(digit))), frames)
        compact(store)
    return store


def test_an_older_version_reads_as_it_was(store):
    assert snapshot.versions(store) == [1, 2]
    assert snapshot.worlds(store, 1)["world_id"].to_pylist() == ["a" * 32]
    assert sorted(snapshot.worlds(store)["world_id"].to_pylist()) == ["a" * 32, "b" * 32]
    assert snapshot.frames(store, 1).num_rows == 1
    assert snapshot.frames(store).num_rows == 2
    assert snapshot.latest(store) == snapshot.read(store, 2)


def test_versions_are_immutable(store):
    before = store.read_bytes(snapshot_key(1))
    assert not store.create(snapshot_key(1), b"other")
    assert store.read_bytes(snapshot_key(1)) == before


def test_tables_have_their_schema_and_take_columns(store):
    assert snapshot.worlds(store).schema == arrow_schema(WorldRecord)
    assert snapshot.frames(store).schema == arrow_schema(FrameRecord)
    assert snapshot.worlds(store, columns=["psnr_db"]).column_names == ["psnr_db"]


def test_files_are_addresses_any_reader_takes(store):
    import pyarrow.parquet as pq

    ref = snapshot.latest(store)
    assert sum(pq.read_table(path).num_rows for path in snapshot.files(store, ref)) == 2
    assert len(snapshot.files(store, ref, "frames")) == len(ref.frames)
    with pytest.raises(CatalogError, match="the tables worlds, frames; found 'rejects'"):
        snapshot.files(store, ref, "rejects")


def test_a_missing_version_names_those_there_are(store, tmp_path):
    with pytest.raises(CatalogError, match=r"no snapshot of version 7; there are 1 to 2"):
        snapshot.worlds(store, 7)
    with pytest.raises(CatalogError, match=r"there is none yet: compact first"):
        snapshot.read(open_store(tmp_path / "empty"), 1)


def test_a_newer_schema_asks_for_an_upgrade(store):
    ref = replace(snapshot.latest(store), version=3, schema_version=99)
    store.create(snapshot_key(3), ref.to_json())
    with pytest.raises(CatalogError, match=r"schema version 99.*upgrade lyra-worlds"):
        snapshot.latest(store)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", json.dumps({"schema_version": 1, "x": 1}).encode()])
def test_a_damaged_description_is_named(store, content):
    store.put_bytes(snapshot_key(3), content)
    with pytest.raises(CatalogError, match=r"v000003\.json cannot be read"):
        snapshot.latest(store)


def test_a_missing_or_torn_part_is_an_error(store):
    ref = snapshot.latest(store)
    store.put_bytes(ref.worlds[0].key, b"torn")
    with pytest.raises(CatalogError, match="worlds of snapshot 2"):
        snapshot.worlds(store)
    store.delete(ref.worlds[0].key)
    with pytest.raises(CatalogError, match="worlds of snapshot 2"):
        snapshot.worlds(store)


def test_columns_that_an_older_part_lacks_are_null(store):
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = snapshot.latest(store).worlds[0]
    table = pq.read_table(store.uri(part.key)).drop_columns(["psnr_db"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    store.put_bytes(part.key, sink.getvalue().to_pybytes())
    assert None in snapshot.worlds(store)["psnr_db"].to_pylist()
