"""The worker as a plain class: worlds, and failures as values that say whether retrying can help."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numba
import pytest
import torch

from catalogs.commit import committed_ids, read_commit
from flows.recipes import find_recipe
from lyra_core.errors import OutOfMemoryError, SeedError, StoreError
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from lyra_core.video.chunk_store import ChunkStore
from tasks.manifest import read_seeds
from tasks.outcome import Failure, Start
from tasks.plan import Request, make_plan
from tasks.worker import Worker, canary_image, guarded, guarded_load, limit_threads
from tasks.worker_config import WorkerConfig
from tasks.world import StageClock


@pytest.fixture
def work(tmp_path, make_seeds, fault_recipe, model_path):
    """A worker on the fault model, and the specs of some seeds."""

    def prepare(*names: str):
        store = open_store(str(tmp_path / "out"))
        plan = make_plan(
            read_seeds([str(make_seeds(*names))]),
            store,
            Request(recipe=fault_recipe, run_id="run"),
            SeedDigestCache(tmp_path / "digests.sqlite"),
            tmp_path / "plan.jsonl",
        )
        config = WorkerConfig(recipe=fault_recipe, out_url=store.root, run_id="run", scratch=str(tmp_path / "scratch"))
        return Worker(config), list(plan.specs()), store

    return prepare


def test_a_world_is_made_then_finished_in_another_thread(work):
    worker, (spec,), store = work("a.png")
    assert worker.make(spec) is None
    outcome = worker.finish(spec.world_id)
    assert (outcome.kind, outcome.num_splats) == ("created", 2)
    assert committed_ids(store) == {spec.world_id}
    assert worker.make(spec) is None
    assert worker.finish(spec.world_id).kind == "exists"
    worker.close()


def test_a_world_whose_worker_died_after_the_commit_was_created_by_this_run(work):
    """The answer to the first attempt is lost with its worker; the second attempt finds what the first committed."""
    worker, (spec,), _ = work("a.png")
    worker.make(spec)
    first = worker.finish(spec.world_id)
    worker.make(spec, Start(attempt=2))
    again = worker.finish(spec.world_id)
    assert (again.kind, again.num_splats, again.num_bytes) == ("created", first.num_splats, first.num_bytes)
    assert (again.accepted, again.psnr_db) == (first.accepted, first.psnr_db)
    worker.config = replace(worker.config, run_id="another run")
    worker.make(spec, Start(attempt=2))
    assert worker.finish(spec.world_id).kind == "exists"
    worker.close()


@pytest.mark.parametrize(
    ("name", "stage", "error", "permanent"),
    [("bad.png", "video", "ReconstructionError", True), ("bug.png", "video", "ZeroDivisionError", False)],
)
def test_a_failure_is_a_value_with_its_stage(work, name, stage, error, permanent):
    worker, (spec,), store = work(name)
    failure = worker.make(spec)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.error_type, failure.permanent) == (stage, error, permanent)
    assert bool(failure.traceback) is (error == "ZeroDivisionError")
    assert committed_ids(store) == set()


def test_a_seed_that_changed_since_planning_is_refused(work):
    worker, (spec,), _ = work("a.png")
    with open(spec.seed_uri, "ab") as file:  # noqa: PTH123
        file.write(b"more")
    failure = worker.make(spec)
    assert (failure.stage, failure.permanent) == ("seed", True)


def test_an_output_that_refuses_is_never_the_seeds_fault(work, tmp_path):
    worker, (spec,), _ = work("a.png")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file where the folder should be")
    assert worker.make(spec) is None
    failure = worker.finish(spec.world_id)
    assert (failure.stage, failure.blames_store, failure.error_type) == ("upload", True, "StoreRefusedError")


def test_rows_tell_of_the_attempt(work):
    worker, (spec,), store = work("a.png")
    worker.make(spec, Start(attempt=3, queue_s=1.5))
    worker.finish(spec.world_id)
    row = read_commit(store, spec.world_id).world
    assert (row.attempt, row.retries, row.queue_s, row.worker_id) == (3, 2, 1.5, worker.id)
    assert row.artifacts[0].key.startswith(f"worlds/{spec.world_id[:2]}/{spec.world_id}/")
    assert row.folder is not None
    assert all(artifact.key.startswith(row.folder) for artifact in row.artifacts)


def test_other_weights_than_planned_are_refused_before_the_first_world(tmp_path):
    config = WorkerConfig(
        recipe=find_recipe("mini"), out_url=str(tmp_path / "out"), run_id="run", weights_digests=("f" * 64,)
    )
    failure = guarded_load(lambda: Worker(config))
    assert (failure.error_type, failure.blames_store) == ("WeightsError", False)
    assert "planned with ffffffffffff" in failure.message


def test_damaged_chunks_are_made_again(work, tmp_path, monkeypatch):
    worker, (spec,), _ = work("a.png")
    folder = worker.scratch.open(spec) / "video"
    folder.mkdir()
    (folder / "chunks.json").write_text("{")

    def read_list(image, camera_path, *, chunk_dir, **options):
        ChunkStore(Path(chunk_dir) / "video").read(0, "", "")
        return generate(image, camera_path, chunk_dir=chunk_dir, **options)

    generate = worker.model.generate
    monkeypatch.setattr(worker.model, "generate", read_list)
    failure = worker.make(spec)
    assert (failure.error_type, failure.blames_store, failure.permanent) == ("TornObjectError", True, False)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("error", "permanent"),
    [(SeedError("x"), True), (StoreError("x"), False), (OutOfMemoryError("x"), False), (KeyError("x"), False)],
)
def test_only_errors_of_the_seed_are_permanent(error, permanent):
    def work():
        raise error

    assert guarded(work, StageClock()).permanent is permanent


def test_a_model_that_does_not_load_blames_no_seed(model_path):
    recipe = find_recipe("parallax", ["model=fault_model:load_broken"])
    failure = guarded_load(
        lambda: Worker(WorkerConfig(recipe=recipe, out_url="memory://x", run_id="run", scratch="/nowhere"))
    )
    assert (failure.stage, failure.permanent) == ("load", False)
    assert "the weights are on a disk that is gone" in failure.message


def test_the_canary_needs_no_seed(work):
    worker, _, store = work("a.png")
    assert worker.canary() is None
    assert committed_ids(store) == set()
    assert canary_image(64, 48).shape == (48, 64, 3)


def test_threads_are_limited_where_the_work_is_done(work, monkeypatch):
    worker, (spec,), _ = work("a.png")
    seen = {}
    generate = worker.model.generate

    def look(*arguments, **options):
        seen["make"] = (torch.get_num_threads(), numba.get_num_threads())
        return generate(*arguments, **options)

    monkeypatch.setattr(worker.model, "generate", look)
    limit_threads(2)  # what another thread of the process chose says nothing here
    worker.make(spec)
    worker.finish(spec.world_id)
    assert seen["make"] == (1, 1)
