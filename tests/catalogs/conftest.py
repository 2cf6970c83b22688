"""Small worlds for the catalog, and processes that race for them."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import queue
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from catalogs.commit import commit
from lyra_core.formats.store import Store, StoredObject, open_store
from lyra_core.frame_table import frame_table
from lyra_core.identity import chunk_ids
from lyra_core.layout import upload_prefix
from lyra_core.records import Artifact, FrameRecord, WorldRecord

MORNING = datetime(2026, 11, 22, 8, tzinfo=UTC)
NUM_FRAMES = 5


def world(index: int, **changes: object) -> WorldRecord:
    """A world without files; equal indices give equal worlds."""
    start = hashlib.sha256(f"world {index}".encode()).hexdigest()[:32]
    chunks = chunk_ids(start, [b"cameras"], ["caption"])
    values: dict[str, object] = {
        "world_id": chunks[-1],
        "chunk_ids": chunks,
        "run_id": "run-1",
        "name": f"seed-{index}",
        "recipe": "mini",
        "seed_uri": f"seeds/{index}.jpg",
        "seed_license": "CC0-1.0",
        "output_license": "CC-BY-4.0",
        "weights_digests": ("d" * 64,),
        "weights_licenses": ("Apache-2.0",),
        "psnr_db": 20.0 + index,
        "accepted": index % 4 != 3,
        "num_splats": 100 * index,
        "bounds_min": (-1.0, -2.0, -3.0),
        "stage_s": {"video": 1.5, "gaussians": 0.5},
        "created_at": MORNING + timedelta(minutes=index),
    }
    return WorldRecord(**{**values, **changes})


def cameras(world_id: str) -> pa.Table:
    """Five cameras that differ between worlds."""
    generator = np.random.default_rng(int(world_id[:8], 16))
    w2c, K = generator.random((NUM_FRAMES, 4, 4)), generator.random((NUM_FRAMES, 3, 3))
    return frame_table(world_id, w2c, K, fps=16.0, image_size=(832, 480))


def camera_rows(world_id: str) -> list[FrameRecord]:
    """The same as records."""
    return [FrameRecord.from_row(row) for row in cameras(world_id).to_pylist()]


def store_payload(store: Store, record: WorldRecord) -> WorldRecord:
    """Upload a payload of a few bytes and put it into the record."""
    # another attempt has another folder, the same record the same
    folder = upload_prefix(record.world_id, hashlib.sha256(record.to_json().encode()).hexdigest()[:12])
    put = store.put_bytes(f"{folder}world.ply", record.world_id.encode() * 3)
    return replace(record, folder=folder).with_artifacts([as_artifact(put)], store.root)


def as_artifact(put: StoredObject) -> Artifact:
    """A stored file as a row names it."""
    return Artifact(role="ply", key=put.key, media_type="model/ply", bytes=put.bytes, sha256=put.sha256, etag=put.etag)


def commit_worlds(store: Store, indices: range, **changes: object) -> list[WorldRecord]:
    """Commit worlds with payloads and cameras."""
    records = [store_payload(store, world(index, **changes)) for index in indices]
    for record in records:
        commit(store, record, cameras(record.world_id))
    return records


def make_older(store: Store, hours: float = 48.0) -> None:
    """Set back the time of every file of a local store."""
    then = time.time() - hours * 3600
    for path in Path(store.root).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def race(target: Callable, processes: int, *args: object) -> list:
    """Run a target in many processes at once and gather what each returns."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(processes), context.Queue()

    def run() -> None:
        barrier.wait()
        results.put(target(*args))

    children = [context.Process(target=run) for _ in range(processes)]
    for child in children:
        child.start()
    found = []
    while len(found) < processes:
        with contextlib.suppress(queue.Empty):
            found.append(results.get(timeout=0.5))
        assert not any(child.exitcode for child in children), "a process died; its traceback is above"
    for child in children:
        child.join()
    return found


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> Store:
    """An empty store; the local one does not wait for the disk."""
    if request.param == "local":
        return open_store(tmp_path / "store", fsync=False)
    return open_store(f"memory://{tmp_path.name}")


@pytest.fixture
def local(tmp_path) -> Store:
    """An empty store that other processes see."""
    return open_store(tmp_path / "store", fsync=False)


@pytest.fixture
def s3(s3_server) -> Store:
    """An empty place on a real server."""
    return open_store(s3_server.new_root(), **s3_server.options)


@pytest.fixture
def sample():
    """The builders above, for tests (which cannot import a conftest)."""
    import types

    return types.SimpleNamespace(
        world=world,
        cameras=cameras,
        camera_rows=camera_rows,
        store_payload=store_payload,
        commit_worlds=commit_worlds,
        race=race,
        make_older=make_older,
        artifact=as_artifact,
        num_frames=NUM_FRAMES,
        morning=MORNING,
    )
