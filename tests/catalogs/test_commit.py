"""A world exists exactly once, and only after its files."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from catalogs.commit import CommitOutcome, commit, committed_ids, is_committed, read_commit, read_commits
from lyra_core.errors import CatalogError, StoreError
from lyra_core.formats.store import open_store
from lyra_core.layout import commit_key
from lyra_core.records import FrameRecord, WorldRecord, arrow_schema


def test_a_commit_comes_back_with_its_cameras(store, sample):
    record = sample.store_payload(store, sample.world(1))
    frames = sample.cameras(record.world_id)
    assert not is_committed(store, record.world_id)
    assert commit(store, record, frames) is CommitOutcome.CREATED
    assert is_committed(store, record.world_id)
    assert committed_ids(store) == {record.world_id}
    found = read_commit(store, record.world_id)
    assert found.world == record
    assert list(found.frames) == sample.camera_rows(record.world_id)


def test_the_first_commit_stays(store, sample):
    record = sample.store_payload(store, sample.world(1))
    late = sample.store_payload(store, sample.world(1, run_id="run-2", attempt=2))
    assert commit(store, record) == "created"
    assert commit(store, late) == "exists"
    assert read_commit(store, record.world_id).world == record
    assert read_commit(store, record.world_id).frames == ()


def test_a_commit_waits_for_its_payloads(store, sample):
    record = sample.store_payload(store, sample.world(1))
    torn, missing = replace(record.artifacts[0], bytes=7), replace(record.artifacts[0], key="worlds/nowhere")
    with pytest.raises(StoreError, match=r"world\.ply: wanted 7 bytes, found 96; worlds/nowhere: .* found nothing"):
        commit(store, replace(record, artifacts=(torn, missing)))
    assert committed_ids(store) == set()
    assert commit(store, record) == "created"
    store.delete(record.artifacts[0].key)
    assert commit(store, sample.world(1)) == "exists"


def test_a_commit_whose_reply_was_lost_is_known_for_ones_own(store, sample):
    record = sample.store_payload(store, sample.world(1))
    assert commit(store, record) == "created"
    assert commit(store, record) == "created", "the same files: the first try worked, only its reply was lost"
    assert len(committed_ids(store)) == 1


def test_cameras_of_another_world_are_refused(store, sample):
    with pytest.raises(CatalogError, match="cannot be committed with frames of"):
        commit(store, sample.world(1), sample.cameras(sample.world(2).world_id))


@pytest.mark.parametrize("world_id", ["", "abc", "A" * 32, "../" * 10 + "ab", "g" * 32])
def test_ids_that_could_leave_the_catalog_are_refused(store, world_id):
    with pytest.raises(CatalogError, match="32 lower-case hex digits"):
        commit(store, WorldRecord(world_id=world_id))


def test_tables_keep_the_order_of_the_ids(store, sample):
    records = sample.commit_worlds(store, range(6))
    ids = [record.world_id for record in records][::-1]
    worlds, frames = read_commits(store, ids)
    assert worlds.schema == arrow_schema(WorldRecord)
    assert frames.schema == arrow_schema(FrameRecord)
    assert [WorldRecord.from_row(row) for row in worlds.to_pylist()] == records[::-1]
    assert [FrameRecord.from_row(row) for row in frames.to_pylist()] == [f for i in ids for f in sample.camera_rows(i)]
    assert [table.num_rows for table in read_commits(store, [])] == [0, 0]


def test_unreadable_commits_are_named(store, sample):
    record = sample.world(1)
    with pytest.raises(CatalogError, match=f"world {record.world_id} is not committed"):
        read_commit(store, record.world_id)
    for content in (b"", b"PAR1 not really PAR1"):
        store.put_bytes(commit_key(record.world_id), content)
        with pytest.raises(CatalogError, match=f"{record.world_id}.parquet cannot be read"):
            read_commit(store, record.world_id)
    other = sample.world(2)
    commit(store, other)
    store.put_bytes(commit_key(record.world_id), store.read_bytes(commit_key(other.world_id)))
    with pytest.raises(CatalogError, match=rf"{record.world_id}\.parquet holds the world {other.world_id}"):
        read_commit(store, record.world_id)


def test_cameras_of_other_versions_are_read(store, sample):
    """An older version lacks a column, a newer one has one more."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = sample.world(1)
    commit(store, record, sample.cameras(record.world_id))
    key = commit_key(record.world_id)
    row = pq.read_table(pa.BufferReader(store.read_bytes(key)))
    cameras = pa.ipc.open_stream(row["frames"][0].as_buffer()).read_all()
    cameras = cameras.drop_columns(["width"]).append_column("news", pa.nulls(len(cameras), pa.string()))
    stream, sink = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, cameras.schema) as writer:
        writer.write_table(cameras)
    pq.write_table(row.set_column(2, "frames", pa.array([stream.getvalue().to_pybytes()])), sink)
    store.put_bytes(key, sink.getvalue().to_pybytes())
    found = read_commit(store, record.world_id)
    assert found.frames == tuple(replace(f, width=None) for f in sample.camera_rows(record.world_id))


def test_ten_thousand_ids_are_listed_in_a_second(local):
    ids = {hashlib.md5(f"{i}".encode()).hexdigest() for i in range(10_000)}
    for world_id in ids:
        path = Path(local.uri(commit_key(world_id)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    times = []
    for _ in range(3):
        start = time.process_time()  # wall time would measure the neighbours of a shared machine
        assert committed_ids(local) == ids
        times.append(time.process_time() - start)
    assert min(times) < 1.0


def _commit_all(url, options, records):
    store = open_store(url, **options)
    return [r.world_id for r in records if commit(store, replace(r, worker_id=f"{os.getpid()}")) == "created"]


@pytest.mark.parametrize(
    ("kind", "processes", "count"),
    [("local", 16, 200), ("s3", 4, 6), pytest.param("s3", 8, 20, marks=pytest.mark.slow)],
)
def test_racing_processes_commit_each_world_once(kind, processes, count, request, sample):
    store = request.getfixturevalue(kind)
    options = {"fsync": False} if kind == "local" else request.getfixturevalue("s3_server").options
    records = [sample.world(index) for index in range(count)]
    wins = sample.race(_commit_all, processes, store.root, options, records)
    assert sorted(world for won in wins for world in won) == sorted(r.world_id for r in records)
    assert committed_ids(store) == {r.world_id for r in records}
    worlds, _ = read_commits(store, sorted(committed_ids(store)))
    assert worlds["world_id"].to_pylist() == sorted(r.world_id for r in records)


def test_killed_workers_leave_only_whole_worlds(local, sample):
    """SIGKILL at random moments of put and commit, again and again, until every world is done."""
    context = multiprocessing.get_context("fork")
    indices, kills, pause = range(60), 0, random.Random(0)
    while len(committed_ids(local)) < len(indices):
        child = context.Process(target=sample.commit_worlds, args=(local, indices))
        child.start()
        child.join(pause.uniform(0.005, 0.12) if kills < 25 else 60)
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        for world_id in committed_ids(local):
            found = read_commit(local, world_id)
            assert len(found.frames) == sample.num_frames
            for artifact in found.world.artifacts:
                assert hashlib.sha256(local.read_bytes(artifact.key)).hexdigest() == artifact.sha256
    assert kills > 5
    assert committed_ids(local) == {sample.world(index).world_id for index in indices}
