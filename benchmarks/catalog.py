"""Rates of the catalog: python benchmarks/catalog.py [worlds, default 10000] [URL, default a temporary folder]."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catalogs.commit import commit, committed_ids, read_commits
from catalogs.compaction import compact
from catalogs.query import query, status
from lyra_core.formats.store import open_store
from lyra_core.frame_table import frame_table
from lyra_core.layout import commit_key
from lyra_core.records import Artifact, WorldRecord, utc_now

from results import write_result  # isort: skip

WRITERS = 8
NUM_CAMERAS = 81


def main(count: int, url: str) -> None:
    store = open_store(url)
    store.check_writable()
    put = store.put_bytes("worlds/payload", b"x" * 1024)
    files = tuple(
        Artifact(role=role, key=put.key, media_type="x", bytes=put.bytes, sha256=put.sha256)
        for role in ("ply", "video", "thumb")
    )
    found: dict[str, object] = {
        "worlds": count,
        "cameras_each": NUM_CAMERAS,
        "store": url.partition("://")[0] if "://" in url else "local",
    }
    commit_s = timed(lambda: commit_all(url, count, files))
    found["commit_per_s"] = round(count / commit_s, 1)
    found["writers"] = WRITERS
    found["commit_bytes"] = store.size(commit_key(world_id(0)))
    found["list_ids_s"] = timed(lambda: committed_ids(store))
    ids = sorted(committed_ids(store))
    found["read_commits_s"] = timed(lambda: read_commits(store, ids))
    found["status_uncompacted_s"] = timed(lambda: status(store))
    found["compact_s"] = timed(lambda: compact(store))
    found["compact_nothing_new_s"] = timed(lambda: compact(store))
    found["query_s"] = timed(lambda: query(store, "SELECT recipe, avg(psnr_db), count(*) FROM worlds GROUP BY recipe"))
    commit(store, world(count, files), [])
    found["compact_one_new_s"] = timed(lambda: compact(store))
    found["load_average"] = [round(x, 2) for x in os.getloadavg()]
    for name, value in found.items():
        print(f"{name:24} {value}")
    print(write_result(f"catalog-{found['store'] or 'local'}", found))


def commit_all(url: str, count: int, files: tuple[Artifact, ...]) -> None:
    """Commit from several processes, each its own share."""
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=commit_share, args=(url, range(start, count, WRITERS), files))
        for start in range(WRITERS)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        if child.exitcode:
            raise SystemExit(f"a writer ended with {child.exitcode}")


def commit_share(url: str, indices: range, files: tuple[Artifact, ...]) -> None:
    store = open_store(url)
    generator = np.random.default_rng(0)
    w2c, K = generator.random((NUM_CAMERAS, 4, 4)), generator.random((NUM_CAMERAS, 3, 3))
    for index in indices:
        cameras = frame_table(world_id(index), w2c, K, fps=16.0, image_size=(832, 480))
        commit(store, world(index, files), cameras)


def world(index: int, files: tuple[Artifact, ...]) -> WorldRecord:
    record = WorldRecord(
        world_id=world_id(index),
        run_id="benchmark",
        recipe=("mini", "lyra2")[index % 2],
        psnr_db=20.0 + index % 10,
        num_splats=index,
        bounds_min=(-1.0, -1.0, -1.0),
        bounds_max=(1.0, 1.0, 1.0),
        stage_s={"video": 1.0, "gaussians": 2.0},
        created_at=utc_now(),
    )
    return record.with_artifacts(files, "benchmark")


def world_id(index: int) -> str:
    return hashlib.sha256(f"{index}".encode()).hexdigest()[:32]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 3)


if __name__ == "__main__":
    worlds = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    if len(sys.argv) > 2:
        main(worlds, sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(worlds, folder)
