"""The pools around a model that crashes, hangs and errs on request: real Ray, real processes, real files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from concurrent.futures import wait
from pathlib import Path

import psutil
import pytest

from catalogs.commit import committed_ids
from lyra_core.errors import PoolBrokenError, WorkerLoadError
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.inline import InlinePool
from tasks.ledger import Ledger, RetryPolicy
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan
from tasks.pool import RayPool
from tasks.ray_settings import RaySettings
from tasks.worker_config import WorkerConfig

REPOSITORY = Path(__file__).resolve().parents[2]
POLICY = RetryPolicy(backoff_s=0.05)


@pytest.fixture
def batch(tmp_path, make_seeds, fault_recipe, model_path):
    """Plan some seeds and run them through a pool; returns outcomes by seed stem, and the store."""

    def run(
        *names: str,
        executor: str = "ray",
        model: str = "fault_model:load",
        workers: int = 2,
        cpus: float = 1,
        deadline_s: float = 60,
        load_deadline_s: float = 1800,
    ):
        recipe = fault_recipe.model_copy(update={"model": model})
        store = open_store(str(tmp_path / "out"))
        plan = make_plan(
            read_seeds([str(make_seeds(*names))]),
            store,
            Request(recipe=recipe, run_id="run"),
            SeedDigestCache(tmp_path / "digests.sqlite"),
            tmp_path / "plan.jsonl",
        )
        config = WorkerConfig(recipe=recipe, out_url=store.root, run_id="run", scratch=str(tmp_path / "scratch"))
        ledger = Ledger(policy=POLICY)
        if executor == "inline":
            pool = InlinePool(config, ledger)
        else:
            pool = RayPool(
                config,
                RaySettings(
                    num_workers=workers,
                    cpus_per_worker=cpus,
                    world_deadline_s=deadline_s,
                    load_deadline_s=load_deadline_s,
                    factory_root=str(REPOSITORY),
                    model_path=model_path,
                ),
                ledger,
            )
        with pool:
            futures = {spec.seed_uri.rsplit("/", 1)[1].split(".")[0]: pool.submit(spec) for spec in plan.specs()}
            wait(futures.values(), timeout=120)
        return futures, store

    return run


def kinds(futures) -> dict[str, str]:
    return {stem: future.result(timeout=0).kind for stem, future in futures.items()}


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_errors_of_a_seed_cost_that_seed_only(batch, executor):
    futures, store = batch("a.png", "bad.png", "bug.png", "flaky.png", "z.png", executor=executor)
    assert kinds(futures) == {"a": "created", "bad": "rejected", "bug": "rejected", "flaky": "created", "z": "created"}
    assert futures["bad"].result().attempts == 1
    bug = futures["bug"].result()
    assert bug.attempts == POLICY.max_transient
    assert "ZeroDivisionError" in bug.failure.traceback
    assert len(committed_ids(store)) == 3


def test_whatever_ray_calls_a_workers_end_it_is_no_traceback(batch, monkeypatch):
    """Ray's own memory monitor, told that any use is too much, ends every worker."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    futures, store = batch("a.png")
    with pytest.raises(WorkerLoadError, match=r"OutOfMemoryError: .*memory ran out; run fewer --workers"):
        futures["a"].result(timeout=0)
    assert not committed_ids(store)


def test_poison_seeds_are_rejected_and_everything_else_is_made(batch):
    names = ["a.png", "b.png", "c.png", "d.png", "exit.png", "poison.png", "poison2.png"]
    futures, store = batch(*names)
    found = kinds(futures)
    assert {stem for stem, kind in found.items() if kind == "rejected"} == {"exit", "poison", "poison2"}
    assert {stem for stem, kind in found.items() if kind == "created"} == {"a", "b", "c", "d"}
    assert futures["poison"].result().failure.stage == "worker"
    assert len(committed_ids(store)) == 4


@pytest.mark.slow
def test_a_batch_of_poison_only_is_rejected_on_the_word_of_a_canary(batch):
    futures, _ = batch("poison.png", workers=1)
    assert kinds(futures) == {"poison": "rejected"}


@pytest.mark.slow  # waits for a deadline on Ray
def test_a_hang_is_killed_after_the_deadline(batch):
    futures, _ = batch("a.png", "hang.png", deadline_s=4)
    assert kinds(futures) == {"a": "created", "hang": "rejected"}
    assert "a hang" in futures["hang"].result().failure.message


def fill(batch, monkeypatch, *names, load_deadline_s, patience_s):
    """A private cluster of one CPU for three workers of 0.4: one of them waits for room."""
    monkeypatch.setattr("tasks.pool.ROOM_PATIENCE_S", patience_s)
    return batch(*names, workers=3, cpus=0.4, load_deadline_s=load_deadline_s)


@pytest.mark.slow
def test_a_worker_without_room_has_failed_at_nothing(batch, monkeypatch, caplog):
    # half a second each on two workers: longer than the deadline for loading
    names = [f"slow{i:02d}.png" for i in range(130)]
    futures, store = fill(batch, monkeypatch, *names, load_deadline_s=30, patience_s=15)
    assert set(kinds(futures).values()) == {"created"}
    assert len(committed_ids(store)) == 130
    said = [record.getMessage() for record in caplog.records if "no room for more" in record.getMessage()]
    assert len(said) == 1
    assert re.match(r"[0-2] of 3 workers have started, .* no room for more \(0\.4 CPUs and 0 GPUs each\); ", said[0])


def test_models_that_load_for_ever_are_told_with_their_own_deadline(batch):
    futures, _ = batch("a.png", model="fault_model:load_hanging", workers=1, load_deadline_s=0.5)
    with pytest.raises(WorkerLoadError, match=r"no answer within 0\.5 s \(a hang\) while it loaded"):
        futures["a"].result(timeout=0)


@pytest.mark.slow
def test_a_pool_whose_workers_always_die_rejects_nobody(batch):
    futures, store = batch("a.png", "b.png", "c.png", model="fault_model:load_dying")
    for future in futures.values():
        with pytest.raises(PoolBrokenError, match="no seed is to blame"):
            future.result(timeout=0)
    assert not committed_ids(store)


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_models_that_do_not_load_blame_no_seed(batch, executor):
    futures, _ = batch("a.png", model="fault_model:load_broken", executor=executor)
    with pytest.raises(WorkerLoadError, match="the weights are on a disk that is gone"):
        futures["a"].result(timeout=0)


@pytest.mark.slow
def test_workers_killed_at_random_lose_nothing(tmp_path, make_seeds, fault_recipe, model_path):
    names = [f"slow{i:02d}.png" for i in range(12)]
    store = open_store(str(tmp_path / "out"))
    plan = make_plan(
        read_seeds([str(make_seeds(*names))]),
        store,
        Request(recipe=fault_recipe, run_id="run"),
        SeedDigestCache(tmp_path / "digests.sqlite"),
        tmp_path / "plan.jsonl",
    )
    config = WorkerConfig(recipe=fault_recipe, out_url=store.root, run_id="run", scratch=str(tmp_path / "scratch"))
    # Each kill is a death of whatever world was there; the cap is raised because here the machine is at fault.
    ledger = Ledger(policy=RetryPolicy(max_deaths=5, max_load_failures=10, backoff_s=0.05))
    with RayPool(
        config, RaySettings(num_workers=2, factory_root=str(REPOSITORY), model_path=model_path), ledger
    ) as pool:
        futures = [pool.submit(spec) for spec in plan.specs()]
        for _ in range(3):
            time.sleep(1.5)
            kill_one_actor()
        wait(futures, timeout=120)
    assert [f.result(timeout=0).kind for f in futures] == ["created"] * 12
    assert len(committed_ids(store)) == 12


def kill_one_actor() -> None:
    """SIGKILL one of this process's actors."""
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "_Actor" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                return
