"""Who makes the worlds of a batch: how many workers of which kind, what each is told, and the pool that holds them."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from catalogs.rejects import record_attempt
from flows.home import shorten_ray_folder
from flows.parameters import GenerateParameters
from flows.settings import Settings, ray_address_source, use_model_path
from lyra_core.errors import ConfigError
from lyra_core.factory import factory_root
from lyra_core.formats.patience import Patience
from lyra_core.formats.store import Store
from tasks.ledger import Job, Ledger, RetryPolicy
from tasks.outcome import Failure
from tasks.plan import Plan
from tasks.recipe import Recipe
from tasks.worker_config import WorkerConfig

if TYPE_CHECKING:
    from tasks.pool_protocol import Pool

log = logging.getLogger(__name__)

# A CPU worker with torch, numba and one world in memory; measured at 1.1 GB for 81 frames of 240x416.
BYTES_PER_CPU_WORKER = 2 * 2**30
MAX_DEFAULT_CPU_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """How many workers of which kind."""

    num_workers: int
    device: str
    cpus_per_worker: float
    gpus_per_worker: float
    num_threads: int


def plan_workers(settings: Settings, num_worlds: int) -> WorkerPlan:
    """One worker per GPU; without GPUs as many as cores and memory allow, never more than worlds.

    On an existing Ray cluster the number must be given: this machine says nothing about that one.

    Raises:
        ConfigError: cuda was asked for and this machine has none, an existing cluster without --workers, or no folder
            for Ray's sockets.
    """
    is_remote = settings.executor == "ray" and settings.ray_address != "local"
    if is_remote and settings.workers is None:
        raise ConfigError(
            f"workers: an existing Ray cluster ({settings.ray_address}) needs --workers N (one per GPU), found none"
            f"{ray_address_source(settings)}"
        )
    if settings.executor == "ray" and not is_remote:
        shorten_ray_folder(os.environ)
    num_gpus = 0 if settings.device == "cpu" else count_gpus()
    if settings.device == "cuda" and not num_gpus and not is_remote:
        raise ConfigError(
            "device: wanted cuda, found no NVIDIA GPU on this machine; use device = 'cpu' or another machine"
        )
    if settings.gpus_per_world > max(1, num_gpus) and not is_remote:
        raise ConfigError(
            f"gpus_per_world: wanted {settings.gpus_per_world} NVIDIA GPUs for each world, found {num_gpus} here; "
            "leave it at 1, or use a machine with more"
        )
    use_gpu = settings.device == "cuda" or (settings.device == "auto" and num_gpus > 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if settings.workers is not None:
        num_workers = settings.workers
    elif use_gpu:
        num_workers = num_gpus // settings.gpus_per_world
    else:
        num_workers = max(1, min(cores, MAX_DEFAULT_CPU_WORKERS, _memory_bytes() // BYTES_PER_CPU_WORKER))
    num_workers = 1 if settings.executor == "inline" else max(1, min(num_workers, num_worlds))
    return WorkerPlan(
        num_workers=num_workers,
        device="cuda" if use_gpu else "cpu",
        cpus_per_worker=settings.cpus_per_worker,
        gpus_per_worker=float(settings.gpus_per_world) if use_gpu else 0.0,
        num_threads=max(1, cores // num_workers) if not is_remote else max(1, round(settings.cpus_per_worker)),
    )


@lru_cache
def count_gpus() -> int:
    """NVIDIA GPUs that the driver lists; asks the driver, so that torch need not be imported."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def worker_config(
    recipe: Recipe,
    plan: Plan,
    workers: WorkerPlan,
    settings: Settings,
    parameters: GenerateParameters,
    store: Store,
) -> WorkerConfig:
    """What every worker of the batch is told.

    Raises:
        ConfigError: several GPUs for one world, and a model that takes one.
    """
    if settings.gpus_per_world > 1 and recipe.model != "lyra2":
        raise ConfigError(
            f"gpus_per_world: several GPUs make one world together with the model lyra2 only, found {recipe.model!r}; "
            "leave it at 1"
        )
    return WorkerConfig(
        recipe=recipe,
        out_url=store.root,
        run_id=plan.run_id,
        weights_digests=plan.weights_digests,
        store_deadline_s=settings.store_deadline_s,
        device=workers.device,
        num_devices=max(1, int(workers.gpus_per_worker)),
        num_threads=workers.num_threads,
        accepted_licenses=tuple(parameters.accepted_licenses),
        code_commit=code_commit(),
        scratch=settings.scratch_folder,
    )


def open_pool(
    config: WorkerConfig,
    settings: Settings,
    workers: WorkerPlan,
    store: Store,
    on_wait: Callable[[str], None] = log.warning,
) -> Pool:
    """The pool of the configured executor; deaths of workers are persisted, so that they count across runs.

    `on_wait` is told when storage fails and the batch waits for it.
    """
    patience = Patience(settings.store_deadline_s, on_wait)

    def remember(job: Job, failure: Failure) -> None:
        world_id = job.spec.world_id
        patience.run(lambda: record_attempt(store, world_id, config.run_id, worker=failure.message, event="death"))

    policy = RetryPolicy(store_deadline_s=settings.store_deadline_s)
    ledger = Ledger(policy=policy, on_death=remember, on_wait=on_wait)
    if settings.executor == "inline":
        use_model_path(settings)
        from tasks.inline import InlinePool

        return InlinePool(config, ledger)
    from tasks.pool import RayPool
    from tasks.ray_settings import RaySettings

    return RayPool(
        config,
        RaySettings(
            address=settings.ray_address,
            num_workers=workers.num_workers,
            cpus_per_worker=workers.cpus_per_worker,
            gpus_per_worker=workers.gpus_per_worker,
            world_deadline_s=settings.world_deadline_s,
            load_deadline_s=settings.load_deadline_s,
            factory_root=str(factory_root()),
            model_path=settings.model_path,
        ),
        ledger,
    )


def code_commit() -> str:
    """The checkout's git commit, or '' outside one. Recorded, never hashed."""
    root = factory_root()
    if not (root / ".git").exists():
        return ""
    asked = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
    )
    return asked.stdout.strip()
