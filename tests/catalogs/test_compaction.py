"""Compaction loses nothing, doubles nothing, and is never half-seen."""

from __future__ import annotations

import hashlib
import io
import math
import multiprocessing
import os
import signal
import threading
import time

import pyarrow.parquet as pq
import pytest

from catalogs.commit import committed_ids, read_commits
from catalogs.compaction import CompactionSize, compact
from catalogs.garbage import find_garbage, remove_garbage
from lyra_core import snapshot
from lyra_core.errors import CatalogError
from lyra_core.formats.store import open_store
from lyra_core.layout import COMMITS, SNAPSHOTS, commit_key
from lyra_core.records import FrameRecord, WorldRecord

SMALL = CompactionSize(part_worlds=20, max_small_parts=3, batch_worlds=4)


def check_whole(store, sample, indices, version=None):
    """The snapshot holds exactly these worlds, once, with their cameras."""
    worlds = {row["world_id"]: WorldRecord.from_row(row) for row in snapshot.worlds(store, version).to_pylist()}
    frames = [FrameRecord.from_row(row) for row in snapshot.frames(store, version).to_pylist()]
    ref = snapshot.latest(store) if version is None else snapshot.read(store, version)
    wanted = {sample.world(index).world_id: sample.world(index) for index in indices}
    assert snapshot.worlds(store, version).num_rows == len(wanted) == ref.num_worlds
    assert {w: (r.psnr_db, r.chunk_ids) for w, r in worlds.items()} == {
        w: (r.psnr_db, r.chunk_ids) for w, r in wanted.items()
    }
    assert ref.num_accepted == sum(r.accepted for r in wanted.values())
    assert ref.num_frames == len(frames) == len(wanted) * sample.num_frames
    assert sorted(frames, key=lambda f: (f.world_id, f.frame)) == [
        f for w in sorted(wanted) for f in sample.camera_rows(w)
    ]


def test_nothing_committed_gives_no_snapshot(store):
    assert compact(store) is None
    assert snapshot.worlds(store).num_rows == 0
    assert list(store.list()) == []


def test_compaction_is_incremental_and_keeps_commits(store, sample):
    sample.commit_worlds(store, range(10))
    first = compact(store)
    assert (first.version, first.parent, first.num_worlds) == (1, None, 10)
    assert compact(store) == first, "nothing new, nothing written"
    sample.commit_worlds(store, range(10, 14))
    second = compact(store)
    assert (second.version, second.parent) == (2, 1)
    assert second.worlds[: len(first.worlds)] == first.worlds, "earlier parts are listed again, not rewritten"
    assert sum(part.rows for part in second.worlds[len(first.worlds) :]) == 4
    assert len(committed_ids(store)) == 14
    check_whole(store, sample, range(14))
    check_whole(store, sample, range(10), version=1)


def test_small_parts_are_merged(store, sample):
    done = 0
    for round_ in range(12):
        sample.commit_worlds(store, range(done, done + 3 + round_ % 2))
        done += 3 + round_ % 2
        ref = compact(store, SMALL)
        small = [part for part in ref.worlds if 2 * part.rows < SMALL.part_worlds]
        assert len(small) <= SMALL.max_small_parts
        assert all(part.rows <= SMALL.part_worlds for part in ref.worlds)
        check_whole(store, sample, range(done))
    assert len(ref.worlds) < 6
    assert snapshot.versions(store) == list(range(1, 13))
    check_whole(store, sample, range(7), version=2)


def test_parts_are_as_described(store, sample):
    sample.commit_worlds(store, range(50))
    ref = compact(store, SMALL)
    assert len(ref.worlds) == len(ref.frames) == 3
    for part in (*ref.worlds, *ref.frames):
        data = store.read_bytes(part.key)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part.bytes, part.sha256)
    # A group of rows for each batch of commits, not one for each world.
    groups = [pq.ParquetFile(io.BytesIO(store.read_bytes(part.key))).num_row_groups for part in ref.frames]
    assert sum(groups) == math.ceil(50 / SMALL.batch_worlds)


def test_worlds_without_cameras_and_large_batches(store, sample):
    from catalogs.commit import commit

    commit(store, sample.world(0))
    assert compact(store).num_frames == 0
    sample.commit_worlds(store, range(1, 3))
    assert compact(store, CompactionSize(part_worlds=1, batch_worlds=10)).num_frames == 2 * sample.num_frames


@pytest.mark.parametrize("gap", ["worlds-part", "frames-part", "before-version", "after-version"])
def test_a_killed_compaction_is_invisible_or_whole(gap, local, sample):
    """A real process is killed at each gap; the version it was making is there only after the last one."""
    sample.commit_worlds(local, range(8))
    compact(local)
    sample.commit_worlds(local, range(8, 12))

    def die_at(reached: str) -> None:
        if reached == gap:
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=lambda: compact(local, fault=die_at))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    visible = 2 if gap == "after-version" else 1
    assert snapshot.latest(local).version == visible
    check_whole(local, sample, range(12 if visible == 2 else 8))
    assert compact(local).version == 2
    check_whole(local, sample, range(12))
    orphans = {"worlds-part": 1, "frames-part": 2, "before-version": 2, "after-version": 0}[gap]
    assert find_garbage(local).keys == (), "young parts may belong to a compaction that still runs"
    sample.make_older(local)
    assert remove_garbage(local, find_garbage(local)) == orphans
    check_whole(local, sample, range(12))
    check_whole(local, sample, range(8), version=1)


@pytest.mark.parametrize(("kind", "processes"), [("local", 6), ("s3", 3)])
def test_racing_compactions_agree(kind, processes, request, sample):
    store = request.getfixturevalue(kind)
    sample.commit_worlds(store, range(12))
    refs = sample.race(lambda: compact(store, SMALL), processes)
    assert {(ref.version, ref.token) for ref in refs} == {(1, refs[0].token)}
    check_whole(store, sample, range(12))
    listed = {part.key for part in (*refs[0].worlds, *refs[0].frames)}
    assert {i.key for i in store.list(SNAPSHOTS) if i.key.endswith(".parquet")} == listed, "losers clean up"


def test_commits_that_arrive_during_compaction_come_with_the_next(local, sample):
    def worker() -> None:
        sample.commit_worlds(local, range(60))

    thread = threading.Thread(target=worker)
    thread.start()
    while thread.is_alive():
        ref = compact(local, SMALL)
        worlds = snapshot.table(local, ref, "worlds", ["world_id"])["world_id"].to_pylist() if ref else []
        assert len(set(worlds)) == len(worlds)
    thread.join()
    compact(local, SMALL)
    check_whole(local, sample, range(60))


def test_a_lost_reply_does_not_lose_the_version(local, sample, monkeypatch):
    sample.commit_worlds(local, range(3))
    real = type(local).create

    def lossy(self, key, data):
        real(self, key, data)
        return False

    monkeypatch.setattr(type(local), "create", lossy)
    assert compact(local).version == 1
    check_whole(local, sample, range(3))


def test_a_damaged_commit_stops_compaction_by_name(local, sample):
    records = sample.commit_worlds(local, range(3))
    local.put_bytes(commit_key(records[1].world_id), b"torn")
    with pytest.raises(CatalogError, match=records[1].world_id):
        compact(local)
    assert snapshot.latest(local) is None


@pytest.mark.slow
def test_ten_thousand_commits_are_compacted_quickly(tmp_path, sample):
    """CPU seconds, since wall time measures the neighbours of a shared machine."""
    store = open_store(tmp_path, fsync=False)
    sample.commit_worlds(store, range(10_000))
    start = time.process_time()
    ref = compact(store)
    assert ref.num_worlds == len(list(store.list(COMMITS))) == 10_000
    assert time.process_time() - start < 25.0
    start = time.process_time()
    read_commits(store, sorted(committed_ids(store)))
    assert time.process_time() - start < 15.0
