"""The flow that turns seeds into worlds. Read this file first.

plan      ids of all requested worlds; what is committed or rejected is skipped
shards    Prefect task runs, each a slice of the plan; one world each while the batch is small
pool      workers on Ray actors (or in this process) make, store and commit the worlds
compact   commits become a new immutable snapshot of the catalog
report    artifacts: progress, a table of worlds, a summary
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from catalogs.compaction import compact
from catalogs.rejects import all_attempts
from flows.batch import new_run_id, prepare_plan
from flows.parameters import GenerateParameters
from flows.report import BatchSummary, Reporter
from flows.settings import Settings, load_settings
from flows.workforce import Workforce, plan_workforce, worker_config, workers
from lyra_core.formats.patience import Patience
from lyra_core.formats.store import Store, open_store
from lyra_core.spec import WorldSpec
from tasks.plan import Plan, write_plan_rejects
from tasks.recipe import Recipe
from tasks.shard import Batch, ShardReport, make_shard, past_deaths, shard_size

REPORT_EVERY_S = 2.0


@flow(name="generate-worlds", flow_run_name="{parameters.recipe}-batch", persist_result=False)
def generate(parameters: GenerateParameters) -> BatchSummary:
    """Generate every requested world that does not exist yet.

    Running it again with the same parameters makes what is missing and nothing else.

    Raises:
        ManifestError, RecipeError, LicenceError, StoreError, ConfigError: nothing was started.
        PoolBrokenError, WorkerLoadError: workers kept dying; what was committed stays, nothing is rejected for it.
        StoreError: also storage that failed for longer than settings.store_deadline_s; idem.
    """
    settings = load_settings()
    recipe = parameters.resolved_recipe()
    run_id = parameters.run_id or new_run_id()
    store, plan = _planned(parameters, recipe, settings, run_id)
    store.check_writable()
    store.require_conditional_create()
    write_plan_rejects(plan, store)
    patience = Patience(settings.store_deadline_s, get_run_logger().warning)
    reporter = Reporter(plan=plan, recipe=recipe, run_id=run_id, out=parameters.out)
    if plan.num_remaining:
        workforce = plan_workforce(settings, plan.num_remaining)
        get_run_logger().info(
            "%d worlds on %d %s workers",
            plan.num_remaining,
            workforce.num_workers,
            workforce.device,
        )
        config = worker_config(recipe, parameters, plan, workforce, store, settings)
        with workers(config, settings, workforce, store, get_run_logger().warning) as pool:
            batch = Batch(
                pool=pool,
                store=store,
                run_id=run_id,
                recipe=recipe.name,
                deaths=past_deaths(all_attempts(store)),
                patience=patience,
                on_outcome=reporter.add,
            )
            _run_shards(plan, batch, workforce, reporter)
    snapshot = patience.run(lambda: compact(store))
    plan.discard()
    return reporter.finish(snapshot_version=snapshot.version if snapshot else None)


def _planned(parameters: GenerateParameters, recipe: Recipe, settings: Settings, run_id: str) -> tuple[Store, Plan]:
    if parameters.plan_path is not None:
        return open_store(parameters.out), Plan.load(parameters.plan_path)
    return prepare_plan(parameters, recipe, settings, run_id, tell=get_run_logger().warning)


def _run_shards(plan: Plan, batch: Batch, workforce: Workforce, reporter: Reporter) -> None:
    """Run the plan as task runs, at most workers + 2 at a time, streaming it from its file."""
    slots = threading.Semaphore(workforce.num_workers + 2)
    running: list[PrefectFuture[ShardReport]] = []
    runner: ThreadPoolTaskRunner[ShardReport] = ThreadPoolTaskRunner(max_workers=workforce.num_workers + 2)
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


def _still_running(futures: list[PrefectFuture[ShardReport]]) -> list[PrefectFuture[ShardReport]]:
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
