"""Rejects and attempts outlive the process that made them, and a commit closes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from catalogs.rejects import all_attempts, attempts, list_rejects, record_attempt, reject
from lyra_core.errors import CatalogError
from lyra_core.layout import attempts_prefix
from lyra_core.records import RejectRecord

WORLD = "ab" * 16
OTHER = "cd" * 16


@pytest.fixture
def failed(sample):
    return RejectRecord(
        run_id="run-1",
        ordinal=7,
        stage="video",
        reason="no depth",
        error_type="DepthError",
        world_id=sample.world(1).world_id,
        seed_uri="seeds/1.jpg",
        recipe="mini",
        attempts=2,
        manifest_row='{"image": "seeds/1.jpg"}',
        created_at=sample.morning,
    )


def test_rejects_come_back(store, failed):
    assert reject(store, failed) == "created"
    assert reject(store, replace(failed, reason="again")) == "exists"
    assert reject(store, replace(failed, run_id="run-2", world_id=None, seed_uri="other")) == "created"
    assert list_rejects(store)[0] == failed
    assert len(list_rejects(store)) == 2
    assert [r.run_id for r in list_rejects(store, run_id="run-2")] == ["run-2"]
    assert list_rejects(store, run_id="run") == []


def test_a_commit_of_the_world_closes_its_rejects(store, failed, sample):
    reject(store, failed)
    reject(store, replace(failed, run_id="run-2"))
    sample.commit_worlds(store, range(2, 3))
    assert len(list_rejects(store)) == 1, "another world changes nothing"
    sample.commit_worlds(store, range(1, 2))
    assert list_rejects(store) == []
    assert len(list_rejects(store, open_only=False)) == 2


def test_the_last_reject_of_a_world_counts(store, failed):
    reject(store, replace(failed, run_id="a-late-run", created_at=failed.created_at + timedelta(days=1)))
    reject(store, failed)
    assert [r.run_id for r in list_rejects(store)] == ["a-late-run"]


@pytest.mark.parametrize(
    ("changes", "is_open"),
    [
        ({}, False),
        ({"recipe": "lyra2"}, True),
        ({"variant": 1}, True),
        ({"seed_uri": "seeds/2.jpg"}, True),
        ({"created_at": "later"}, True),
    ],
)
def test_an_unreadable_seed_is_closed_by_a_later_world_of_the_same_request(store, failed, sample, changes, is_open):
    if changes.get("created_at") == "later":
        changes = {"created_at": sample.morning + timedelta(days=1)}
    reject(store, replace(failed, world_id=None, **changes))
    assert len(list_rejects(store)) == 1
    sample.commit_worlds(store, range(1, 2))
    assert len(list_rejects(store)) == is_open


@pytest.mark.parametrize(("run_id", "ordinal"), [("../x", 0), ("", 0), ("a/b", 0), ("run", -1)])
def test_bad_names_are_refused(store, failed, run_id, ordinal):
    with pytest.raises(CatalogError, match="a run id of letters, digits"):
        reject(store, replace(failed, run_id=run_id, ordinal=ordinal))


def test_unreadable_rejects_are_named(store, failed):
    reject(store, failed)
    store.put_bytes("catalog/rejects/run-1/000000007.parquet", b"torn")
    with pytest.raises(CatalogError, match=r"000000007\.parquet cannot be read"):
        list_rejects(store)


def test_attempts_are_counted_for_each_world(store):
    assert attempts(store, WORLD) == []
    for number, event in enumerate(["death"] * 10 + ["timeout", "error"], 1):
        assert record_attempt(store, WORLD, "run-1", "gpu-0", event) == number
    record_attempt(store, OTHER, "run-2", "gpu-1", "death")
    found = attempts(store, WORLD)
    assert [a.number for a in found] == list(range(1, 13))
    assert [a.event for a in found][-3:] == ["death", "timeout", "error"]
    assert (found[0].run_id, found[0].worker, found[0].world_id) == ("run-1", "gpu-0", WORLD)
    assert {world: len(events) for world, events in all_attempts(store).items()} == {WORLD: 12, OTHER: 1}


def test_racing_attempts_are_all_counted(local, sample):
    sample.race(lambda: [record_attempt(local, WORLD, "r", "w", "death") for _ in range(5)], 6)
    assert [a.number for a in attempts(local, WORLD)] == list(range(1, 31))


def test_an_attempt_whose_reply_was_lost_is_counted_once(local, monkeypatch):
    real = type(local).create

    def lossy(self, key, data):
        real(self, key, data)
        return False

    monkeypatch.setattr(type(local), "create", lossy)
    assert record_attempt(local, WORLD, "r", "w", "death") == 1
    assert len(attempts(local, WORLD)) == 1


def test_damaged_attempts_are_named(store):
    record_attempt(store, WORLD, "r", "w", "death")
    store.put_bytes(f"{attempts_prefix(WORLD)}1.json", b"{}")
    with pytest.raises(CatalogError, match=r"1\.json cannot be read"):
        attempts(store, WORLD)
