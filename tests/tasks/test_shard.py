"""Shards: one world each while the batch is small, never more than a server can record."""

from __future__ import annotations

import pytest

from catalogs.rejects import all_attempts, list_rejects, record_attempt
from lyra_core.formats.patience import Patience
from lyra_core.formats.store import open_store
from lyra_core.spec import WorldSpec
from tasks.outcome import Failure, Outcome
from tasks.shard import MAX_LARGE_SHARD, SMALL_BATCH, Batch, past_deaths, record_reject, shard_size


@pytest.mark.parametrize(("worlds", "size"), [(1, 1), (2000, 1), (2001, 32), (64_001, 33), (10_000_000, 256)])
def test_shards_grow_with_the_batch(worlds, size):
    assert shard_size(worlds) == size


def test_shards_are_never_smaller_in_a_larger_batch():
    sizes = [shard_size(n) for n in range(1, 600_000, 997)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == MAX_LARGE_SHARD
    assert SMALL_BATCH // shard_size(SMALL_BATCH) == 2000


def test_deaths_of_earlier_runs_are_counted(tmp_path):
    store = open_store(str(tmp_path))
    for world, run in (("a" * 32, "1"), ("a" * 32, "2"), ("b" * 32, "1")):
        record_attempt(store, world, run, worker="it died", event="death")
    assert past_deaths(all_attempts(store)) == {"a" * 32: 2, "b" * 32: 1}


def test_a_reject_row_says_where_and_why(tmp_path):
    store = open_store(str(tmp_path))
    spec = WorldSpec(
        world_id="a" * 32, chunk_ids=("a" * 32,), seed_uri="x/one.jpg", seed_sha256="b" * 64, ordinal=5,
        camera_path="still", num_frames=81,
    )  # fmt: skip
    failure = Failure(permanent=True, stage="video", error_type="PromptError", message="wanted 2 captions, found 1")
    batch = Batch(
        pool=None,
        store=store,
        run_id="run",
        recipe="parallax",
        deaths={},
        patience=Patience(),
        on_outcome=lambda _: None,
    )
    record_reject(batch, Outcome(spec=spec, kind="rejected", failure=failure, attempts=3))
    (row,) = list_rejects(store, open_only=True)
    assert (row.ordinal, row.stage, row.error_type, row.attempts) == (5, "video", "PromptError", 3)
    assert (row.reason, row.world_id, row.recipe) == (failure.message, spec.world_id, "parallax")
