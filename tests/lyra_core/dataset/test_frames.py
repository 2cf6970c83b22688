"""Frames of stored worlds: the right ones, each once, in an order that can be taken up again anywhere."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lyra_core.dataset import FileCache, NewPaths, open_dataset
from lyra_core.errors import CatalogError, ConfigError

FRAMES, STEP_M, WALL_Z = 60, 0.01, 3.0


@pytest.fixture
def cache(tmp_path) -> FileCache:
    return FileCache(tmp_path / "cache")


def names(samples) -> list[tuple[str, int]]:
    return [(sample["world_id"][0], sample["frame"]) for sample in samples]


def batch_names(batches) -> list[list[tuple[str, int]]]:
    return [[(w[0], int(f)) for w, f in zip(b["world_id"], b["frame"], strict=True)] for b in batches]


def test_every_frame_is_the_one_it_says(worlds, cache):
    samples = list(open_dataset(worlds).frames(seed=3, cache=cache))
    assert sorted(names(samples)) == [(w, i) for w in "abcd" for i in range(FRAMES)]
    assert names(samples) != sorted(names(samples))
    for sample in samples:
        wanted = 3 * sample["frame"] + 10 * "abcd".index(sample["world_id"][0])
        assert sample["image"].shape == (3, 32, 48)
        assert abs(float(sample["image"].float().mean()) - wanted) < 3
        assert float(sample["cam_to_world"][0, 3]) == pytest.approx(STEP_M * sample["frame"], abs=1e-6)
        assert np.isnan(sample["meters_per_unit"])
    # Frames of several worlds are mixed.
    assert len({world for world, _ in names(samples[:32])}) >= 3


def test_ranks_and_workers_share_without_overlap_or_loss(worlds, cache):
    found, sizes = [], []
    for rank in range(3):
        frames = open_dataset(worlds).frames(seed=1, every=7, shard=(rank, 3), cache=cache)
        part = [name for b in batch_names(DataLoader(frames, batch_size=4, num_workers=2)) for name in b]
        assert len(part) == frames.num_samples
        found += part
        sizes.append(len(part))
    assert sorted(found) == [(w, i) for w in "abcd" for i in range(0, FRAMES, 7)]
    assert max(sizes) - min(sizes) <= 1


def test_epochs_differ_and_repeat(worlds, cache):
    frames = open_dataset(worlds).frames(seed=1, every=5, cache=cache)
    first = names(frames)
    assert names(frames) == first
    frames.set_epoch(1)
    second = names(frames)
    assert second != first
    assert sorted(second) == sorted(first)
    assert names(open_dataset(worlds).frames(every=5, cache=cache)) == sorted(first)


@pytest.mark.parametrize("stop", [1, 17, 47])
def test_it_goes_on_exactly_where_a_state_was_saved(worlds, cache, stop):
    def opened():
        return open_dataset(worlds).frames(seed=5, every=5, cache=cache)

    whole = names(opened())
    frames = opened()
    running = iter(frames)
    begun = names(next(running) for _ in range(stop))
    state = json.loads(json.dumps(frames.state_dict()))
    resumed = opened()
    resumed.load_state_dict(state)
    assert begun + names(resumed) == whole
    assert names(resumed) == whole  # the next pass is whole again


def test_a_plain_loader_with_workers_goes_on_after_any_batch(worlds, cache):
    def opened():
        return open_dataset(worlds).frames(seed=5, every=9, cache=cache)

    # 28 samples: two workers of 14, batches of 4, so that the last ones are smaller
    whole = batch_names(DataLoader(opened(), batch_size=4, num_workers=2))
    for used in (1, 4, 7):
        frames = opened()
        frames.load_state_dict(opened().state_after(used, batch_size=4, num_workers=2))
        assert batch_names(DataLoader(frames, batch_size=4, num_workers=2)) == whole[used:]
    done = opened().state_after(len(whole), batch_size=4, num_workers=2)
    assert (done["epoch"], done["done"]) == (1, {})
    frames.load_state_dict(opened().state_after(3, batch_size=4, num_workers=2))
    with pytest.raises(ConfigError, match="num_workers=2"):
        next(iter(frames))


def test_a_state_of_something_else_is_refused(worlds, cache):
    state = open_dataset(worlds).frames(seed=5, cache=cache).state_dict()
    with pytest.raises(ConfigError, match="other worlds, another seed"):
        open_dataset(worlds).frames(seed=6, cache=cache).load_state_dict(state)


def test_depth_is_the_walls_and_is_cast_once(worlds, cache):
    frames = open_dataset(worlds).only(["a" * 32]).frames(depth=True, dtype="float32", every=30, cache=cache)
    first = list(frames)
    assert [sample["depth"].shape for sample in first] == [(32, 48)] * 2
    assert all((sample["depth"] - WALL_Z).abs().max() < 0.01 for sample in first)
    assert 0 <= float(first[1]["image"].min()) <= float(first[1]["image"].max()) <= 1
    kept = sorted(cache.folder.glob("depth*"))
    written = [file.stat().st_ino for file in kept]
    assert len(kept) == 2
    assert torch.equal(list(frames)[1]["depth"], first[1]["depth"])
    assert [file.stat().st_ino for file in kept] == written


def test_frames_along_a_new_path_are_drawn(worlds, cache):
    paths = NewPaths(names=("truck-right", "dolly-in"), num_frames=3)
    chosen = open_dataset(worlds).only(["a" * 32])
    samples = list(chosen.frames(paths=paths, depth=True, cache=cache))
    assert [(s["path"], s["frame"]) for s in samples] == [(p, i) for p in paths.names for i in range(3)]
    assert samples[2]["cam_to_world"][0, 3] > 0.01
    nearer = float(samples[5]["cam_to_world"][2, 3])
    assert nearer > 0.01
    assert (samples[5]["depth"] - (WALL_Z - nearer)).abs().max() < 0.01
    assert samples[0]["image"].float().mean() > 150  # the wall is light
    (batch,) = DataLoader(chosen.frames(paths=paths, depth=True, cache=cache), batch_size=6, num_workers=1)
    assert torch.equal(batch["depth"][5], samples[5]["depth"])


def test_resizing_scales_picture_and_lens_alike(worlds, cache):
    sample = next(iter(open_dataset(worlds).frames(size=(16, 24), depth=True, cache=cache)))
    assert (sample["image"].shape, sample["depth"].shape) == ((3, 16, 24), (16, 24))
    assert sample["intrinsics"][:2, 2].tolist() == [12.0, 8.0]


def test_files_of_a_bucket_are_copied_once_and_the_oldest_go(away, tmp_path):
    cache = FileCache(tmp_path / "cache", max_bytes=1)
    frames = open_dataset(away).frames(every=59, cache=cache)
    assert len(list(frames)) == 8
    copies = sorted(cache.folder.iterdir())
    assert len(copies) == 8  # video and cameras of four worlds: used a moment ago, so they stay
    inodes = [file.stat().st_ino for file in copies]
    list(frames)
    assert [file.stat().st_ino for file in copies] == inodes
    for file in copies[:4]:
        os.utime(file, (time.time() - 1000,) * 2)
    cache.make("new", lambda path: path.write_bytes(b"x"))
    assert sorted(cache.folder.iterdir()) == sorted([*copies[4:], cache.folder / "new"])


def test_what_cannot_be_read_is_said_before(worlds, cache):
    opened = open_dataset(worlds)
    with pytest.raises(CatalogError, match="no world is left"):
        opened.where("false").frames(cache=cache)
    with pytest.raises(ConfigError, match="uint8, float32"):
        opened.frames(dtype="float16", cache=cache)
    with pytest.raises(ConfigError, match="rank"):
        opened.frames(shard=(2, 2), cache=cache)
    with pytest.raises(ConfigError, match="positive limit"):
        FileCache(max_bytes=0)
