"""Stored images a second from lyra_core.dataset at 480x832: python benchmarks/dataset.py WORLDS [repeats].

WORLDS is any catalog of upright or wide worlds; their videos are scaled to 480x832 and stored as our own writer stores
videos, in a catalog under a temporary folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.results import hardware, write_result
from catalogs.commit import commit, read_commit
from catalogs.compaction import compact
from lyra_core.dataset import open_dataset
from lyra_core.formats.cameras import read_cameras_parquet, write_cameras_parquet
from lyra_core.formats.clip import read_video, write_mp4
from lyra_core.formats.store import open_store

HEIGHT, WIDTH = 480, 832
BATCH = 16
COPIES = 5  # of each world, so that starting the workers counts as little as in a real epoch


def enlarged_catalog(worlds: str, folder: Path) -> str:
    """The worlds that are wider than high, with their frames at 480x832."""
    source, target = open_dataset(worlds).where("width > height"), open_store(folder / "worlds", fsync=False)
    for row in source.table.select(["world_id", "video_uri", "cameras_uri"]).to_pylist():
        video, cameras = folder / "video.mp4", folder / "cameras.parquet"
        source.store.get_file(row["video_uri"], video)
        source.store.get_file(row["cameras_uri"], cameras)
        frames = read_video(video).permute(0, 3, 1, 2).float()
        large = torch.nn.functional.interpolate(frames, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 255)
        write_mp4(large.round().byte().permute(0, 2, 3, 1).contiguous(), video, 16.0)
        write_cameras_parquet(read_cameras_parquet(cameras).resized(HEIGHT, WIDTH), cameras)
        world = read_commit(source.store, row["world_id"]).world
        for copy in range(COPIES):
            world_id = f"{row['world_id'][:30]}{copy:02x}"
            keys = {"video_uri": f"worlds/{world_id}/video.mp4", "cameras_uri": f"worlds/{world_id}/cameras.parquet"}
            for key, file in zip(keys.values(), (video, cameras), strict=True):
                target.put_file(key, file)
            size = {"height": HEIGHT, "width": WIDTH}
            commit(target, replace(world, world_id=world_id, chunk_ids=(), artifacts=(), ply_uri=None, **size, **keys))
    compact(target)
    return str(folder / "worlds")


def measure(worlds: str, num_workers: int) -> dict:
    """One epoch, from the start of the loader to its last batch: wall clock, and processor time of all processes."""
    frames = open_dataset(worlds).frames(seed=0)
    load, before, start, count = os.getloadavg()[0], sum(os.times()[:4]), time.perf_counter(), 0
    for batch in DataLoader(frames, batch_size=BATCH, num_workers=num_workers):
        count += len(batch["image"])
    wall_s, cpu_s = time.perf_counter() - start, sum(os.times()[:4]) - before
    return {
        "num_workers": num_workers,
        "images": count,
        "images_per_s": round(count / wall_s, 1),
        "cpu_ms_per_image": round(1000 * cpu_s / count, 2),
        "load_before": round(load, 2),
    }


def main(worlds: str, repeats: int = 3) -> None:
    with tempfile.TemporaryDirectory() as name:
        enlarged = enlarged_catalog(worlds, Path(name))
        found = {"hardware": hardware(), "height": HEIGHT, "width": WIDTH, "batch_size": BATCH, "runs": []}
        for num_workers in (2, 0):
            for _ in range(repeats):
                run = measure(enlarged, num_workers)
                found["runs"].append(run)
                print(run)
        found["best_images_per_s"] = max(run["images_per_s"] for run in found["runs"])
    print(write_result("dataset", found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
