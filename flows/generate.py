"""The flow that turns photographs into worlds. Read this file first.

plan      ids of all requested worlds; what is committed or rejected is skipped       flows/session.py, tasks/plan.py
pool      workers on Ray actors (or in this process), each with its models loaded     tasks/pool.py, tasks/worker.py
shards    Prefect task runs, each a slice of the plan; one world each while the batch is small         tasks/shard.py
world     photograph, video, Gaussians, quality, files, commit                          tasks/world.py, tasks/commit.py
compact   commits become a new immutable snapshot of the catalog                               catalogs/compaction.py
report    artifacts in the Prefect UI: progress, a table of worlds, a summary                         flows/report.py
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from prefect import Flow, flow
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from catalogs.compaction import compact
from catalogs.rejects import all_attempts
from flows.parameters import GenerateParameters
from flows.report import BatchSummary, Reporter
from flows.session import Session
from flows.settings import load_settings
from lyra_core.spec import WorldSpec
from tasks.outcome import Outcome
from tasks.plan import Plan, write_plan_rejects
from tasks.shard import Batch, make_shard, past_deaths, shard_size

NAME, RUN_NAME = "generate-worlds", "{parameters.recipe}-batch"
REPORT_EVERY_S = 2.0


@flow(name=NAME, flow_run_name=RUN_NAME, persist_result=False)
def generate(parameters: GenerateParameters) -> BatchSummary:
    """Generate every requested world that does not exist yet.

    Running it again with the same parameters makes what is missing and nothing else.

    Raises:
        ManifestError, RecipeError, LicenseError, StoreError, ConfigError: nothing was started.
        PoolBrokenError, WorkerLoadError: workers kept dying; what was committed stays, nothing is rejected for it.
        StoreError: also storage that failed for longer than settings.store_deadline_s; idem.
    """
    with Session.planned(parameters, load_settings(), tell=get_run_logger().warning) as session:
        session.warn_of_secrets()
        session.check_output()
        return generate_batch(session)


def flow_of(session: Session) -> Flow[[GenerateParameters], BatchSummary]:
    """The same flow for a batch that this process has planned already, and whose workers may be loading.

    Call it with session.public_parameters, which is what Prefect records.
    """

    @flow(name=NAME, flow_run_name=RUN_NAME, persist_result=False)
    def generate_planned(parameters: GenerateParameters) -> BatchSummary:  # noqa: ARG001  recorded by Prefect
        return generate_batch(session)

    return generate_planned


def generate_batch(session: Session) -> BatchSummary:
    """Make the worlds of a planned batch, inside a flow run.

    Raises:
        PoolBrokenError, WorkerLoadError, StoreError: as generate.
    """
    plan, store, patience = session.plan, session.store, session.patience
    reporter = Reporter(plan=plan, recipe=session.recipe, run_id=session.run_id, out=session.parameters.out)

    def on_outcome(outcome: Outcome) -> None:
        reporter.add(outcome)
        session.on_outcome(outcome)

    patience.run(lambda: write_plan_rejects(plan, store))
    if plan.num_remaining:
        workers = session.workers
        get_run_logger().info("%d worlds on %d %s workers", plan.num_remaining, workers.num_workers, workers.device)
        batch = Batch(
            pool=session.open_pool(),
            store=store,
            run_id=session.run_id,
            recipe=session.recipe.name,
            deaths=past_deaths(patience.run(lambda: all_attempts(store))),
            patience=patience,
            on_outcome=on_outcome,
        )
        _run_shards(plan, batch, workers.num_workers + 2, reporter)
    snapshot = patience.run(lambda: compact(store))
    return reporter.finish(snapshot_version=snapshot.version if snapshot else None)


def _run_shards(plan: Plan, batch: Batch, at_once: int, reporter: Reporter) -> None:
    """Run the plan as task runs, so many at a time, streaming it from its file."""
    slots = threading.Semaphore(at_once)
    running: list[PrefectFuture[None]] = []
    runner: ThreadPoolTaskRunner[None] = ThreadPoolTaskRunner(max_workers=at_once)
    with runner:
        try:
            for specs in batched(plan.specs(), shard_size(plan.num_remaining)):
                while not slots.acquire(timeout=REPORT_EVERY_S):
                    reporter.tick()
                running = _still_running(running)
                name = specs[0].name if len(specs) == 1 else f"{specs[0].ordinal}-{specs[-1].ordinal}"
                future = runner.submit(make_shard, parameters={"name": name, "specs": specs, "batch": batch})
                future.add_done_callback(lambda _: slots.release())
                running.append(future)
                reporter.tick()
            while running:
                wait(running, timeout=REPORT_EVERY_S)
                running = _still_running(running)
                reporter.tick()
        except BaseException:
            # Killing the workers first lets the shards, and with them this runner, end at once.
            batch.pool.close()
            raise


def _still_running(futures: list[PrefectFuture[None]]) -> list[PrefectFuture[None]]:
    """Drop finished shards; one that failed raises, because then the workers are at fault."""
    running = []
    for future in futures:
        if future.state.is_final():
            future.result(raise_on_failure=True)
        else:
            running.append(future)
    return running


def batched(specs: Iterable[WorldSpec], size: int) -> Iterator[list[WorldSpec]]:
    """Consecutive lists of at most `size` worlds."""
    stream = iter(specs)
    while chunk := list(islice(stream, size)):
        yield chunk
