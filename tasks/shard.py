"""A Prefect task is a shard of worlds; the only file here that knows Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from catalogs.rejects import Attempt, reject
from lyra_core.formats.patience import Patience
from lyra_core.formats.store import Store
from lyra_core.public_uri import public_uri
from lyra_core.records import RejectRecord
from lyra_core.spec import WorldSpec
from tasks.outcome import Outcome
from tasks.pool_protocol import Pool

SMALL_BATCH = 2000
MAX_SHARDS = 2000
MIN_LARGE_SHARD, MAX_LARGE_SHARD = 32, 256


def shard_size(num_worlds: int) -> int:
    """1 while each world can be a task run of its own; larger for batches a Prefect server could not record."""
    if num_worlds <= SMALL_BATCH:
        return 1
    return min(MAX_LARGE_SHARD, max(MIN_LARGE_SHARD, -(-num_worlds // MAX_SHARDS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What every shard of a flow run shares. Opaque to Prefect: it is never serialised."""

    pool: Pool
    store: Store
    run_id: str
    recipe: str
    deaths: Mapping[str, int]
    patience: Patience
    on_outcome: Callable[[Outcome], None]


@task(name="make-worlds", task_run_name="{name}", persist_result=False, cache_policy=NO_CACHE)
def make_shard(name: str, specs: list[WorldSpec], batch: Batch) -> None:  # noqa: ARG001 (name is for the UI)
    """Make every world of a shard and record the rejects.

    Raises:
        PoolBrokenError, WorkerLoadError: the workers are at fault; no seed of the shard is rejected for it.
        StoreError: storage failed for longer than its deadline; idem.
    """
    log = get_run_logger()
    for outcome in _outcomes(specs, batch):
        batch.on_outcome(outcome)
        if outcome.failure is not None:
            log.warning(
                "%s rejected at %s: %s",
                outcome.spec.name,
                outcome.failure.stage,
                outcome.failure.message,
            )


def _outcomes(specs: Iterable[WorldSpec], batch: Batch) -> Iterable[Outcome]:
    futures: list[Future[Outcome]] = [
        batch.pool.submit(spec, past_deaths=batch.deaths.get(spec.world_id, 0)) for spec in specs
    ]
    for future in as_completed(futures):
        outcome = future.result()
        if outcome.kind == "rejected":
            batch.patience.run(partial(record_reject, batch, outcome))
        yield outcome


def past_deaths(attempts: Mapping[str, Sequence[Attempt]]) -> dict[str, int]:
    """Deaths of workers on each world recorded by earlier runs."""
    return {world_id: sum(a.event == "death" for a in events) for world_id, events in attempts.items()}


def record_reject(batch: Batch, outcome: Outcome) -> None:
    """Write the reject row of a world that could not be made."""
    spec, failure = outcome.spec, outcome.failure
    reject(
        batch.store,
        RejectRecord(
            run_id=batch.run_id,
            ordinal=spec.ordinal,
            stage=failure.stage if failure else "worker",
            reason=failure.message if failure else "unknown",
            error_type=failure.error_type if failure else None,
            traceback=(failure.traceback or None) if failure else None,
            world_id=spec.world_id,
            seed_uri=public_uri(spec.seed_uri),
            seed_sha256=spec.seed_sha256,
            recipe=batch.recipe,
            variant=spec.variant,
            attempts=outcome.attempts,
        ),
    )
