"""The factory around the tiny Lyra 2: killed worlds go on, longer paths continue, rows say how it went."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from catalogs.commit import read_commit
from catalogs.query import query
from flows.recipes import find_recipe
from lyra_core.errors import WeightsError
from lyra_core.formats.store import open_store
from lyra_core.identity import digest_file
from lyra_core.mini.manifest import mini_digest
from lyra_core.weights.manifest import manifest_digest
from tasks.manifest import ManifestRow
from tasks.plan import WorldNamer
from tasks.recipe import Recipe
from tasks.weights import video_digest, weights_digests
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = (
    *("width=64", "height=48", "video.num_steps=1", "video.guidance_scale=1", "video.encoded_prefix=2"),
    *("reconstruction.tier=1500", "reconstruction.color_passes=1", "quality_views=1"),
    *("artifacts=ply,cameras,chunks", "camera_path=truck-right"),
)
# A worker in a process of its own, to be killed.
MAKE = """
import pickle, sys, torch
from tasks.worker import Worker
torch.set_num_threads(1)
config, spec = pickle.load(open(sys.argv[1], "rb"))
Worker(config).make(spec)
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    script = REPOSITORY / "tests" / "models" / "tiny_weights.py"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-W", "ignore", script, folder / "w"], env=environment, check=True)
    return find_recipe("lyra2", [*SETTINGS, f"weights={folder / 'w' / 'weights'}"])


@pytest.fixture
def photograph(make_seeds) -> Path:
    return make_seeds("a.png") / "a.png"


def spec_of(recipe: Recipe, photograph: Path, frames: int):
    row = ManifestRow(seed_uri=str(photograph), ordinal=0, frames=frames, prompt="a meadow")
    return WorldNamer(recipe).name(row, digest_file(photograph))[0]


def files(out: Path, world_id: str) -> dict[str, bytes]:
    root = out / str(read_commit(open_store(out), world_id).world.folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_killed_extended_and_recorded(recipe, photograph, tmp_path):
    short, long = (spec_of(recipe, photograph, frames) for frames in (81, 161))
    assert long.chunk_ids[:1] == short.chunk_ids
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    config = WorkerConfig(recipe=recipe, out_url=str(out), run_id="run", scratch=str(scratch))

    # A world of one chunk, kept; then the longer path from its chunks.
    worker = Worker(config)
    assert worker.make(short) is None
    assert worker.finish(short.world_id).kind == "created"
    assert not (scratch / short.world_id).exists()
    sampled = count_samples(worker)
    assert worker.make(long) is None
    assert worker.finish(long.world_id).kind == "created"
    assert sampled == [1]

    # The longer world again, elsewhere, its worker killed after the first chunk.
    elsewhere = replace(config, out_url=str(tmp_path / "elsewhere"), scratch=str(tmp_path / "scratch2"))
    (tmp_path / "job").write_bytes(pickle.dumps((elsewhere, long)))
    kill_after_first_chunk(tmp_path / "job", tmp_path / "scratch2" / long.world_id)
    second = Worker(elsewhere)
    sampled = count_samples(second)
    assert second.make(long) is None
    assert second.finish(long.world_id).kind == "created"
    assert sampled == [1]
    one, other = files(out, long.world_id), files(tmp_path / "elsewhere", long.world_id)
    assert set(one) == set(other) >= {"gaussians.ply", "chunks/chunk-0001.safetensors", "chunks/seed.safetensors"}
    assert one["gaussians.ply"] == other["gaussians.ply"]
    assert one["chunks/chunk-0001.safetensors"] == other["chunks/chunk-0001.safetensors"]

    row = query(open_store(str(out)), f"SELECT * FROM worlds WHERE world_id = '{long.world_id}'").to_pylist()[0]
    assert row["camera_residual_deg"] > 0
    assert row["camera_residual_percent"] > 0
    assert row["cameras_source"] in ("requested", "recovered")
    assert row["num_keyframes"] >= 2
    assert row["is_refined"] is None
    assert (row["precision"], row["inference_steps"], row["guidance"]) == ("float32", 1, 1.0)
    assert (row["metric_scale_source"], row["meters_per_unit"]) == ("depth_model", 1.0)
    assert row["checkpoint_sha256"] == row["weights_digests"][0]
    assert row["weights_licenses"] == ["nvidia-internal-research", "apache-2.0"]
    assert len(row["weights_digests"]) == 7
    assert json.loads(row["recipe_json"])["video"]["num_steps"] == 1
    # Random weights follow no camera, and the row says so.
    assert not row["accepted"]
    assert any("departs from its cameras" in reason for reason in row["reject_reasons"])


def count_samples(worker: Worker) -> list[int]:
    """Numbers of the chunks that are sampled from now on."""
    sampled: list[int] = []
    sample = worker.model.rollout._sample

    def counting(*arguments):
        sampled.append(arguments[3])
        return sample(*arguments)

    worker.model.rollout._sample = counting
    return sampled


def kill_after_first_chunk(job: Path, folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", MAKE, str(job)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
    )
    deadline = time.monotonic() + 240
    while not (folder / "video" / "chunks.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the worker ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_captions_by_chunk_are_part_of_the_ids(recipe, photograph):
    def ids(prompt):
        row = ManifestRow(seed_uri=str(photograph), ordinal=0, frames=161, prompt=prompt)
        return WorldNamer(recipe).name(row, "0" * 64)[0]

    same, other = ids('["a", "a"]'), ids('["a", "b"]')
    assert same.chunk_ids == ids("a").chunk_ids
    assert same.prompts == ("a",)
    assert other.prompts == ("a", "b")
    assert other.chunk_ids[0] == same.chunk_ids[0]
    assert other.chunk_ids[1] != same.chunk_ids[1]


def test_digests_are_those_of_the_sets_a_recipe_loads(recipe):
    plain = weights_digests(recipe)
    fast = recipe.model_copy(update={"video": replace(recipe.video, loras=("lora-dmd:1.0",))})
    assert set(weights_digests(fast)) > set(plain)
    clean = find_recipe("parallax-da3", [f"weights={recipe.weights}"])
    assert len(weights_digests(clean)) == 2
    dit = manifest_digest(Path(recipe.weights) / "lyra2-dit")
    assert [video_digest(r, weights_digests(r)) for r in (recipe, fast)] == [dit, dit]
    assert video_digest(clean, weights_digests(clean)) is None, "the baseline's video has no weights"
    embedded = find_recipe("mini")
    assert video_digest(embedded, weights_digests(embedded)) == mini_digest()
    assert video_digest(find_recipe("parallax"), ()) is None
    with pytest.raises(WeightsError, match="lyra weights fetch lyra2-dit"):
        weights_digests(recipe.model_copy(update={"weights": "nowhere"}))


def test_a_seed_that_cannot_be_used_leaves_no_scratch(recipe, photograph, tmp_path):
    config = WorkerConfig(recipe=recipe, out_url=str(tmp_path / "out"), run_id="run", scratch=str(tmp_path / "scratch"))
    spec = spec_of(recipe, photograph, 81)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failure = Worker(config).make(replace(spec, prompts=("a", "b", "c")))
    assert failure.permanent
    assert failure.error_type == "PromptError"
    assert not (tmp_path / "scratch" / spec.world_id).exists()
