"""What a batch is before anything starts: its run id, plan and workers. Shared by the flow and the CLI's dry run."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flows.parameters import GenerateParameters
from flows.settings import Settings
from lyra_core._launch import factory_root
from lyra_core.errors import ConfigError
from lyra_core.formats.store import Store, open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.plan import Plan, Request, make_plan
from tasks.recipe import Recipe

# A CPU worker with torch, numba and one world in memory; measured at 1.1 GB for 81 frames of 240x416.
BYTES_PER_CPU_WORKER = 2 * 2**30
MAX_DEFAULT_CPU_WORKERS = 8


def new_run_id() -> str:
    """Sortable by time, unique without coordination."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def prepare_plan(
    parameters: GenerateParameters,
    recipe: Recipe,
    settings: Settings,
    run_id: str,
    on_seed: Callable[[int], None] | None = None,
) -> tuple[Store, Plan]:
    """Check the output and name every world; writes nothing to the output.

    Raises:
        ManifestError: no such seeds. StoreError: the output cannot be read.
    """
    store = open_store(parameters.out)
    plan = make_plan(
        read_seeds(parameters.seeds),
        store,
        Request(
            recipe=recipe,
            run_id=run_id,
            retry_rejects=parameters.retry_rejects,
            limit=parameters.limit,
        ),
        SeedDigestCache(settings.home_path / "seed-digests.sqlite"),
        settings.home_path / "plans" / f"{run_id}.jsonl",
        on_seed,
    )
    return store, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Workforce:
    """How many workers of which kind."""

    num_workers: int
    device: str
    cpus_per_worker: float
    gpus_per_worker: float
    num_threads: int


def plan_workforce(settings: Settings, num_worlds: int) -> Workforce:
    """One worker per GPU; without GPUs as many as cores and memory allow, never more than worlds.

    On an existing Ray cluster the number must be given: this machine says nothing about that one.

    Raises:
        ConfigError: cuda was asked for and this machine has none, or an existing cluster without --workers.
    """
    is_remote = settings.executor == "ray" and settings.ray_address != "local"
    if is_remote and settings.workers is None:
        raise ConfigError(
            f"workers: an existing Ray cluster ({settings.ray_address}) needs --workers N (one per GPU), found none"
        )
    num_gpus = 0 if settings.device == "cpu" else count_gpus()
    if settings.device == "cuda" and not num_gpus and not is_remote:
        raise ConfigError(
            "device: wanted cuda, found no NVIDIA GPU on this machine; use device = 'cpu' or another machine"
        )
    use_gpu = settings.device == "cuda" or (settings.device == "auto" and num_gpus > 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if settings.workers is not None:
        num_workers = settings.workers
    elif use_gpu:
        num_workers = num_gpus
    else:
        num_workers = max(1, min(cores, MAX_DEFAULT_CPU_WORKERS, _memory_bytes() // BYTES_PER_CPU_WORKER))
    num_workers = 1 if settings.executor == "inline" else max(1, min(num_workers, num_worlds))
    return Workforce(
        num_workers=num_workers,
        device="cuda" if use_gpu else "cpu",
        cpus_per_worker=settings.cpus_per_worker,
        gpus_per_worker=1.0 if use_gpu else 0.0,
        num_threads=max(1, cores // num_workers) if not is_remote else max(1, round(settings.cpus_per_worker)),
    )


def count_gpus() -> int:
    """NVIDIA GPUs that the driver lists; asks the driver, so that torch need not be imported."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def code_commit() -> str:
    """The checkout's git commit, or '' outside one. Recorded, never hashed."""
    root = factory_root()
    if not (root / ".git").exists():
        return ""
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return found.stdout.strip()


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
