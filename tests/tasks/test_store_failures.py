"""Storage fails, two drivers race, credentials are missing: no photograph is blamed, and bytes are those of the row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from catalogs.commit import committed_ids
from catalogs.garbage import find_garbage
from catalogs.verify import verify
from lyra_core.errors import PoolBrokenError, StoreError, StoreRefusedError
from lyra_core.formats.patience import Patience
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
NUM_RACED = {"file": 20, "s3": 10}


class TestPatience:
    def test_work_is_tried_until_the_store_answers(self):
        told, tries = [], []

        def work():
            tries.append(time.monotonic())
            if len(tries) < 3:
                raise StoreError("503")
            return "done"

        patience = Patience(30.0, told.append)
        assert patience.run(work) == "done"
        assert len(told) == 1
        assert "503" in told[0]
        assert patience.waiting is None
        assert tries[2] - tries[1] > 0.4

    def test_the_deadline_ends_it_with_the_last_cause(self):
        with pytest.raises(StoreError, match=r"503 \(waited 1 s for it\)"):
            Patience(1.2).run(self.fail)

    def test_what_waiting_does_not_mend_is_raised_at_once(self):
        def work():
            raise StoreRefusedError("403")

        started = time.monotonic()
        with pytest.raises(StoreRefusedError):
            Patience(30.0).run(work)
        assert time.monotonic() - started < 0.2

    def test_a_stopped_wait_ends(self):
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        started = time.monotonic()
        with pytest.raises(StoreError):
            Patience(60.0, stop=stop).run(self.fail)
        assert time.monotonic() - started < 5

    @staticmethod
    def fail():
        raise StoreError("503")


@pytest.fixture
def batch(tmp_path, make_seeds, fault_recipe, model_path, s3_gate, s3_server):
    """Worlds on their way to a bucket behind a gate: start() gives (pool, futures, store, told)."""
    root = s3_server.new_root()

    def prepare(*names: str, executor: str = "inline", deadline_s: float = 60.0):
        store = open_store(root)
        plan = make_plan(
            read_seeds([str(make_seeds(*names))]),
            store,
            Request(recipe=fault_recipe, run_id="run"),
            SeedDigestCache(tmp_path / "digests.sqlite"),
            tmp_path / "plan.jsonl",
        )
        config = WorkerConfig(
            recipe=fault_recipe,
            out_url=store.root,
            run_id="run",
            scratch=str(tmp_path / "scratch"),
            store_deadline_s=deadline_s,
        )
        told: list[str] = []
        ledger = Ledger(policy=RetryPolicy(backoff_s=0.05, store_deadline_s=deadline_s), on_wait=told.append)
        if executor == "inline":
            pool = InlinePool(config, ledger)
        else:
            settings = RaySettings(num_workers=2, factory_root=str(REPOSITORY), model_path=model_path)
            pool = RayPool(config, settings, ledger)
        return pool, list(plan.specs()), store, told

    return prepare


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_an_outage_in_mid_batch_costs_time_and_no_world(batch, s3_gate, executor):
    names = [f"slow{i}.png" for i in range(8)]
    pool, specs, store, told = batch(*names, executor=executor)
    with pool:
        futures = [pool.submit(spec) for spec in specs]
        futures[0].result(timeout=120)
        s3_gate.shut()
        away_since = time.monotonic()
        while not told and time.monotonic() - away_since < 90:
            time.sleep(0.2)
        s3_gate.open()
        kinds = [future.result(timeout=120).kind for future in futures]
    assert kinds == ["created"] * len(names)
    assert "no new world is started" in told[0]
    assert verify(store) == []


@pytest.mark.slow  # waits for a deadline of a store
def test_an_outage_beyond_the_deadline_ends_the_batch_without_rejects(batch, s3_gate):
    names = [f"slow{i}.png" for i in range(6)]
    pool, specs, store, _ = batch(*names, deadline_s=2.0)
    with pool:
        futures = [pool.submit(spec) for spec in specs]
        futures[0].result(timeout=120)
        s3_gate.shut()
        ends = [future.exception(timeout=120) or future.result().kind for future in futures]
    s3_gate.open()
    failures = [end for end in ends if isinstance(end, StoreError)]
    assert failures
    assert "No photograph was rejected" in str(failures[-1])
    assert set(ends) - set(failures) == {"created"}
    again, specs, store, _ = batch(*names)
    with again:
        assert {future.result(timeout=120).kind for future in [again.submit(spec) for spec in specs]} == {"created"}
    assert len(committed_ids(store)) == len(names)
    assert verify(store) == []


def test_a_pool_that_is_closed_in_an_outage_does_not_wait_for_its_end(batch, s3_gate):
    pool, specs, _, told = batch(*(f"slow{i}.png" for i in range(6)), deadline_s=300.0)
    futures = [pool.submit(spec) for spec in specs]
    futures[0].result(timeout=120)
    s3_gate.shut()
    away_since = time.monotonic()
    while not told and time.monotonic() - away_since < 90:
        time.sleep(0.2)
    closing_since = time.monotonic()
    pool.close()
    assert time.monotonic() - closing_since < 60
    assert isinstance(futures[-1].exception(timeout=1), (StoreError, PoolBrokenError))


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_without_credentials_are_told_before_the_first_world(batch, monkeypatch, executor):
    pool, specs, _, _ = batch("a.png", "b.png", executor=executor)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    __import__("s3fs").S3FileSystem.clear_instance_cache()
    with pool:
        errors = [future.exception(timeout=120) for future in [pool.submit(spec) for spec in specs]]
    for error in errors:
        assert isinstance(error, StoreError)
        assert "check the credentials" in str(error)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_two_drivers_racing_with_a_model_that_never_repeats_itself(kind, request, make_seeds, tmp_path, model_path):
    num_raced = NUM_RACED[kind]
    seeds = make_seeds(*(f"{i:02d}.png" for i in range(num_raced)))
    if kind == "s3":
        request.getfixturevalue("s3_gate")
        out = request.getfixturevalue("s3_server").new_root()
    else:
        out = str(tmp_path / "out")
    drivers = []
    for name in ("one", "two"):
        (tmp_path / "drivers" / name).mkdir(parents=True)
        command = [sys.executable, REPOSITORY / "tests/models/drive.py", seeds, out, tmp_path / "drivers" / name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), model_path])}
        drivers.append(
            subprocess.Popen(
                [*map(str, command), "fault_model:load_noisy"], env=environment, stdout=subprocess.PIPE, text=True
            )
        )
    ends = [json.loads(driver.communicate(timeout=240)[0]) for driver in drivers]
    assert sum(end.get("created", 0) for end in ends) == num_raced
    assert sum(sum(end.values()) for end in ends) == 2 * num_raced
    store = open_store(out)
    assert len(committed_ids(store)) == num_raced
    assert verify(store) == []
    assert len(list(store.list("worlds/"))) == 3 * num_raced, "who came second removed its files"
    assert find_garbage(store, older_than_s=3600).keys == ()
