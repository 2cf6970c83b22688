"""The policy of blame, without Ray."""

from __future__ import annotations

import pytest

from lyra_core.errors import StoreError
from lyra_core.spec import WorldSpec
from tasks.ledger import Job, Ledger, RetryPolicy, Verdict
from tasks.outcome import Failure, Start


def job(name: str = "a") -> Job:
    return Job(
        spec=WorldSpec(
            world_id=name * 32,
            chunk_ids=(name * 32,),
            seed_uri=f"{name}.png",
            seed_sha256="0" * 64,
            ordinal=0,
            camera_path="dolly-in",
            num_frames=81,
        )
    )


def failure(*, permanent: bool = False) -> Failure:
    return Failure(permanent=permanent, stage="video", error_type="E", message="m")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(policy=RetryPolicy(max_transient=3, max_deaths=2, backoff_s=1.0, max_consecutive_death_rejects=3))


def test_permanent_error_rejects_at_once(ledger):
    assert ledger.failed(job(), failure(permanent=True), now_s=0) is Verdict.REJECT


def test_transient_error_is_retried_with_doubling_backoff_and_then_rejected(ledger):
    world = job()
    assert ledger.failed(world, failure(), now_s=10) is Verdict.RETRY
    assert world.not_before_s == 11
    assert ledger.failed(world, failure(), now_s=20) is Verdict.RETRY
    assert world.not_before_s == 22
    assert ledger.failed(world, failure(), now_s=30) is Verdict.REJECT


def storage(*, permanent: bool = False) -> Failure:
    return Failure(permanent=permanent, stage="store", error_type="StoreError", message="503", blames_store=True)


def test_storage_that_fails_pauses_everybody_and_blames_nobody():
    told = []
    ledger = Ledger(policy=RetryPolicy(max_transient=2, store_deadline_s=100), on_wait=told.append)
    world = job()
    for now in (10.0, 30.0, 60.0, 109.0):
        assert ledger.failed(world, storage(), now_s=now) is Verdict.RETRY
        assert ledger.is_paused(now + 1)
        assert world.not_before_s > now
    assert world.attempts == 0
    assert len(told) == 1
    with pytest.raises(StoreError, match="No photograph was rejected"):
        ledger.failed(world, storage(), now_s=111.0)


def test_a_store_that_answered_meanwhile_gets_its_whole_deadline_again():
    told = []
    ledger = Ledger(policy=RetryPolicy(store_deadline_s=100), on_wait=told.append)
    ledger.failed(job(), storage(), now_s=0.0)
    ledger.store_answered()
    ledger.store_answered()
    assert told[1:] == ["storage answers again"]
    assert not ledger.is_paused(0.1)
    assert ledger.failed(job(), storage(), now_s=150.0) is Verdict.RETRY


def test_storage_that_refuses_ends_the_batch_at_once(ledger):
    with pytest.raises(StoreError, match="run the same command again"):
        ledger.failed(job(), storage(permanent=True), now_s=0.0)


def test_starts_are_numbered_and_timed():
    world = job()
    world.submitted_s = 5.0
    assert world.start(7.5) == Start(attempt=1, queue_s=2.5)
    assert world.start(9.0).attempt == 2
    assert Job(spec=world.spec, deaths=1).start(0.0).attempt == 2


def test_a_death_with_two_worlds_on_the_worker_blames_nobody(ledger):
    world = job()
    assert ledger.died(world, failure(), alone=False) is Verdict.RETRY_ALONE
    assert world.deaths == 0
    assert world.alone


def test_two_deaths_reject_where_another_world_succeeded_meanwhile(ledger):
    world = job()
    assert ledger.died(world, failure(), alone=True) is Verdict.RETRY_ALONE
    ledger.succeeded()
    assert ledger.died(world, failure(), alone=True) is Verdict.REJECT


def test_two_deaths_without_any_success_ask_for_a_canary(ledger):
    world = job()
    ledger.died(world, failure(), alone=True)
    assert ledger.died(world, failure(), alone=True) is Verdict.CANARY


def test_deaths_of_earlier_runs_count(ledger):
    world = job()
    world.deaths = 1
    ledger.succeeded()
    assert ledger.died(world, failure(), alone=True) is Verdict.CANARY, "success came before its first death here"


def test_deaths_are_reported_for_persistence():
    seen = []
    ledger = Ledger(policy=RetryPolicy(), on_death=lambda world, _: seen.append(world.spec.world_id))
    ledger.died(job("b"), failure(), alone=True)
    ledger.died(job("c"), failure(), alone=False)
    assert seen == ["b" * 32]


def test_many_rejects_by_death_in_a_row_break_the_pool_and_a_success_forgives(ledger):
    for _ in range(2):
        ledger.rejected_by_death()
    ledger.succeeded()
    for _ in range(2):
        ledger.rejected_by_death()
    assert not ledger.is_broken()
    ledger.rejected_by_death()
    assert ledger.is_broken()
