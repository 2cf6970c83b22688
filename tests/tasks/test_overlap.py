"""Worlds that are finished while the next one is begun: the same files and rows as one after another."""

import threading
import time
from dataclasses import replace

import pytest

from catalogs.commit import read_commit
from flows.recipes import find_recipe
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.inline import InlinePool
from tasks.ledger import Ledger, RetryPolicy
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

SMALL = ["width=64", "height=48", "flythrough_frames=2", "quality_views=1"]
TIMES = {"stage_s", "queue_s", "wall_s", "gpu_seconds", "device_idle_s", "created_at", "started_at", "finished_at"}
PLACES = {"folder", "base_uri", "artifacts", "ply_uri", "video_uri", "cameras_uri", "thumb_uri", "run_id"}


def planned(folder, recipe, seeds, out):
    store = open_store(out, fsync=False)
    digests = SeedDigestCache(folder / "digests.sqlite")
    plan = make_plan(
        read_seeds([str(seeds)]), store, Request(recipe=recipe, run_id="run"), digests, folder / f"{out.name}.jsonl"
    )
    return store, list(plan.specs())


def batch(folder, recipe, seeds, *, overlaps):
    """Files and row of every world of a batch, and the outcomes."""
    out = folder / f"out-{overlaps}"
    store, specs = planned(folder, recipe, seeds, out)
    config = WorkerConfig(
        recipe=recipe,
        out_url=store.root,
        run_id="run",
        scratch=str(folder / f"scratch-{overlaps}"),
        is_overlapping=overlaps,
    )
    with InlinePool(config, Ledger(policy=RetryPolicy())) as pool:
        outcomes = [future.result() for future in [pool.submit(spec) for spec in specs]]
    assert not list((folder / f"scratch-{overlaps}").iterdir()), "chunks of finished worlds are gone"
    return {spec.world_id: world(store, out, spec.world_id) for spec in specs}, outcomes


def world(store, out, world_id):
    row = read_commit(store, world_id).world
    home = out / row.folder
    files = {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    return files, {name: value for name, value in row.to_row().items() if name not in TIMES | PLACES}, row


def compare(plain, overlapped):
    assert plain.keys() == overlapped.keys()
    for world_id, (files, row, whole) in plain.items():
        assert overlapped[world_id][0] == files
        assert overlapped[world_id][1] == row
        assert list(overlapped[world_id][2].stage_s) == list(whole.stage_s)


def test_a_batch_gives_equal_bytes_and_rows(make_seeds, tmp_path):
    recipe, seeds = find_recipe("parallax", SMALL), make_seeds("a.png", "b.png", "c.png")
    plain, one_by_one = batch(tmp_path, recipe, seeds, overlaps=False)
    assert all(outcome.idle_s is None for outcome in one_by_one), "on a CPU nothing waits for anything"
    overlapped, outcomes = batch(tmp_path, recipe, seeds, overlaps=True)
    assert len(plain) == 3
    compare(plain, overlapped)
    assert [outcome.idle_s is None for outcome in outcomes] == [True, False, False], "the first waited for nothing"
    assert all(outcome.device_s > 0 for outcome in outcomes)
    assert {row.device_idle_s for _, _, row in overlapped.values()} == {outcome.idle_s for outcome in outcomes}


@pytest.mark.slow
def test_a_model_of_two_steps_gives_equal_bytes_and_rows(make_seeds, tmp_path):
    recipe, seeds = find_recipe("mini", ["flythrough_frames=2", "quality_views=1"]), make_seeds("a.png", "b.png")
    plain, _ = batch(tmp_path, recipe, seeds, overlaps=False)
    overlapped, _ = batch(tmp_path, recipe, seeds, overlaps=True)
    compare(plain, overlapped)


@pytest.fixture
def overlapping(tmp_path, make_seeds, fault_recipe, model_path):
    """An overlapping worker on the fault model, and the specs of some seeds."""

    def prepare(*names):
        store, specs = planned(tmp_path, fault_recipe, make_seeds(*names), tmp_path / "out")
        config = WorkerConfig(
            recipe=fault_recipe,
            out_url=store.root,
            run_id="run",
            scratch=str(tmp_path / "scratch"),
            is_overlapping=True,
        )
        return Worker(config), specs

    return prepare


def test_at_most_one_world_waits_while_the_next_is_begun(overlapping):
    worker, specs = overlapping("a.png", "b.png", "c.png")
    gate, begun = threading.Event(), []
    completed = worker._completed
    worker._completed = lambda *arguments: (gate.wait(30), completed(*arguments))[1]

    def make_all():
        for spec in specs:
            assert worker.make(spec) is None
            begun.append(spec.world_id)

    making = threading.Thread(target=make_all)
    making.start()
    time.sleep(0.5)
    assert len(begun) == 2, "the third would be one more in memory"
    gate.set()
    making.join(30)
    assert [worker.finish(spec.world_id).kind for spec in specs] == ["created"] * 3
    worker.close()


def test_a_photograph_is_read_ahead_and_its_fault_told_by_its_own_make(overlapping, tmp_path):
    worker, (spec, other) = overlapping("a.png", "b.png")
    worker.expect(spec)
    worker._expected[spec.world_id].exception(30)
    (tmp_path / "seeds" / "a.png").rename(tmp_path / "moved.png")
    assert worker.make(spec) is None, "it was read before"
    assert worker.finish(spec.world_id).kind == "created"
    worker.expect(replace(other, seed_sha256="0" * 64))
    failure = worker.make(replace(other, seed_sha256="0" * 64))
    assert (failure.stage, failure.error_type, failure.permanent) == ("seed", "SeedError", True)
    worker.close()


def test_a_failure_of_the_second_half_is_a_value_with_its_stage(overlapping, tmp_path):
    worker, (spec,) = overlapping("a.png")

    def fail(begun, clock):
        with clock("quality"):
            raise ZeroDivisionError("a bug")

    worker._completed = fail
    assert worker.make(spec) is None
    failure = worker.finish(spec.world_id)
    assert (failure.stage, failure.error_type, failure.permanent) == ("quality", "ZeroDivisionError", False)
    assert (tmp_path / "scratch" / spec.world_id).exists(), "what can be retried keeps its chunks"
    worker.close()
