"""The factory around tiny Cosmos 3: ids with chunks of another length, and a row that lets a world be published."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from catalogs.query import query
from flows.recipes import find_recipe
from lyra_core.formats.store import open_store
from lyra_core.identity import digest_file
from lyra_core.weights.manifest import manifest_digest
from tasks.manifest import ManifestRow
from tasks.plan import WorldNamer
from tasks.weights import video_digest, weights_digests
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = (
    *("width=320", "height=192", "num_frames=9", "cosmos.chunk_frames=4", "cosmos.num_steps=1"),
    *("reconstruction.is_refined=false", "reconstruction.tier=1500", "reconstruction.color_passes=1"),
    *("quality_views=1", "artifacts=ply,cameras,video,chunks", "camera_path=truck-right"),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    pytest.importorskip("diffusers")
    pytest.importorskip("accelerate")
    spec = importlib.util.spec_from_file_location("tiny_cosmos", REPOSITORY / "tests" / "models" / "tiny_cosmos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return find_recipe("cosmos3-nano", [*SETTINGS, f"weights={module.write_weights(tmp_path_factory.mktemp('tiny'))}"])


def spec_of(recipe, photograph: Path, **row):
    found = ManifestRow(seed_uri=str(photograph), ordinal=0, prompt="a meadow", license="CC0-1.0", **row)
    return WorldNamer(recipe).name(found, digest_file(photograph))[0]


def test_ids_chain_over_chunks_of_the_models_length(recipe, make_seeds):
    photograph = make_seeds("a.png") / "a.png"
    short, long = (spec_of(recipe, photograph, frames=frames) for frames in (5, 9))
    assert len(long.chunk_ids) == 2
    assert long.chunk_ids[:1] == short.chunk_ids
    for change in ("cosmos.library=diffusers 0.42.9", "cosmos.overlap_latents=2", "cosmos.vae_dtype=float32"):
        fields = [*SETTINGS, f"weights={recipe.weights}", change]
        assert spec_of(find_recipe("cosmos3-nano", fields), photograph).world_id != long.world_id


def test_the_networks_digest_is_the_sets(recipe):
    digests = weights_digests(recipe)
    assert video_digest(recipe, digests) == manifest_digest(Path(recipe.weights) / "cosmos3-nano")
    assert len(digests) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the camera moves:lyra_core.errors.LyraWarning")
def test_the_canary_has_a_chunk_of_the_models_length(recipe, tmp_path):
    worker = Worker(WorkerConfig(recipe=recipe, out_url=str(tmp_path / "out"), run_id="run", scratch=str(tmp_path)))
    assert worker.canary() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the camera moves:lyra_core.errors.LyraWarning")
def test_a_world_that_may_be_published(recipe, make_seeds, tmp_path):
    spec = spec_of(recipe, make_seeds("a.png") / "a.png")
    out = tmp_path / "out"
    worker = Worker(WorkerConfig(recipe=recipe, out_url=str(out), run_id="run", scratch=str(tmp_path / "scratch")))
    assert worker.make(spec) is None
    assert worker.finish(spec.world_id).kind == "created"
    row = query(open_store(str(out)), "SELECT * FROM worlds").to_pylist()[0]
    assert row["weights_licenses"] == ["openmdw-1.1", "apache-2.0"]
    assert row["accepted_licenses"] == []
    assert row["output_license"] == "CC0-1.0", "the photograph's, and nothing else"
    assert (row["num_frames"], row["fps"], row["precision"], row["inference_steps"]) == (9, 30.0, "bfloat16", 1)
    assert json.loads(row["recipe_json"])["cosmos"]["library"] == "diffusers 0.42.1"
    roles = {artifact["role"] for artifact in row["artifacts"]}
    assert roles >= {"ply", "video", "cameras"}
