"""Dispatch of worlds to workers on Ray actors; the only file that knows Ray.

One thread owns the loop. Each actor makes one world at a time while a thread of its process encodes and uploads the one
before. Ray never restarts an actor or retries a call here: the loop owns retries, because only it knows which world to
blame. Payloads never come to the driver.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lyra_core.errors import ConfigError, PoolBrokenError, WorkerLoadError
from lyra_core.extras import require
from lyra_core.spec import WorldSpec
from tasks.ledger import Job, Ledger, Verdict, store_failure
from tasks.outcome import Failure, Outcome, Start, Waiting
from tasks.ray_settings import RaySettings

if TYPE_CHECKING:
    from tasks.worker import Worker
    from tasks.worker_config import WorkerConfig

log = logging.getLogger(__name__)

TICK_S = 0.25
ROOM_PATIENCE_S = 60.0
"""Until workers that wait for room in the cluster are told of."""
JOIN_TIMEOUT_S = 60


class _Actor:
    """Runs in the actor's process. The constructor is trivial, so that a failed model load is a value, not a death."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def arrive(self) -> None:
        """Answers as soon as the process lives; Ray may keep it waiting for room until then."""

    def load(self, config: WorkerConfig) -> Failure | None:
        """Load the models."""
        from tasks.worker import Worker, guarded_load

        loaded = guarded_load(lambda: Worker(config))
        if isinstance(loaded, Failure):
            return loaded
        self._worker = loaded
        return None

    def make(self, spec: WorldSpec, start: Start) -> Failure | None:
        return self._loaded.make(spec, start)

    def expect(self, spec: WorldSpec) -> None:
        self._loaded.expect(spec)

    def finish(self, world_id: str) -> Outcome | Failure | Waiting:
        return self._loaded.finish(world_id)

    def canary(self) -> Failure | None:
        return self._loaded.canary()

    @property
    def _loaded(self) -> Worker:
        if self._worker is None:
            raise WorkerLoadError("a world was sent to a worker before its models were loaded")
        return self._worker


@dataclass(slots=True)
class _Call:
    """A call in flight on an actor."""

    what: str
    ref: Any
    deadline_s: float
    limit_s: float
    job: Job | None = None


@dataclass(slots=True, eq=False)
class _Slot:
    """One actor and what it is doing."""

    number: int
    actor: Any
    calls: dict[str, _Call] = field(default_factory=dict)
    is_loaded: bool = False
    suspect: Job | None = None

    def jobs(self) -> list[Job]:
        return [call.job for call in self.calls.values() if call.job is not None]


class RayPool:
    """A pool of actors on a local or an existing Ray cluster."""

    def __init__(self, config: WorkerConfig, settings: RaySettings, ledger: Ledger) -> None:
        self._config, self._settings, self._ledger = config, settings, ledger
        self._incoming: deque[tuple[Job, Future[Outcome]]] = deque()
        self._pending: deque[Job] = deque()
        self._futures: dict[str, Future[Outcome]] = {}
        self._slots: list[_Slot] = []
        self._load_failures = 0
        self._next_number = 0
        self._patient_until_s = time.monotonic() + ROOM_PATIENCE_S
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._broken: Exception | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        start_ray(self._settings)
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(self, spec: WorldSpec, past_deaths: int = 0) -> Future[Outcome]:
        """Queue a world; past_deaths are those recorded by earlier runs."""
        future: Future[Outcome] = Future()
        with self._lock:
            if self._broken is not None:
                future.set_exception(self._broken)
            else:
                self._incoming.append((Job(spec=spec, deaths=past_deaths, alone=past_deaths > 0), future))
        return future

    def close(self) -> None:
        """Kill the actors (only that frees a GPU at once) and leave the cluster."""
        import ray

        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=JOIN_TIMEOUT_S)
        for slot in self._slots:
            ray.kill(slot.actor, no_restart=True)
        self._slots.clear()
        ray.shutdown()

    def _run(self) -> None:
        """The dispatch loop; whatever it raises reaches every waiting future."""
        try:
            for _ in range(self._settings.num_workers):
                self._spawn()
            while not self._closing.is_set():
                self._take_incoming()
                self._assign()
                self._collect()
                self._expire()
            self._break(PoolBrokenError("the pool was closed before these worlds were made"))
        except Exception as error:
            import ray

            log.debug("dispatch loop ended", exc_info=True)
            if isinstance(error, ray.exceptions.RayError):  # of no worker: the cluster itself
                first = str(error).strip().partition("\n")[0]
                error = PoolBrokenError(
                    f"Ray stopped working: {type(error).__name__}: {first}; run the same command again"
                )
            self._break(error)

    def _break(self, error: Exception) -> None:
        with self._lock:
            self._broken = error
            waiting = [*self._futures.values(), *(future for _, future in self._incoming)]
            self._incoming.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _spawn(self) -> None:
        import ray

        settings = self._settings
        actor_class: Any = ray.remote(_Actor)
        actor = actor_class.options(
            num_cpus=settings.cpus_per_worker,
            num_gpus=settings.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=4,  # one world being made, at most two being finished, and a word on the next
        ).remote()
        slot = _Slot(number=self._next_number, actor=actor)
        log.debug("worker %d: created", slot.number)
        self._next_number += 1
        # No deadline: an actor that waits for room in the cluster is late, and has failed at nothing.
        slot.calls["arrive"] = self._call(slot.actor.arrive.remote(), "arrive", math.inf)
        self._slots.append(slot)

    def _call(self, ref: Any, what: str, limit_s: float, job: Job | None = None) -> _Call:
        return _Call(what=what, ref=ref, deadline_s=time.monotonic() + limit_s, limit_s=limit_s, job=job)

    def _take_incoming(self) -> None:
        with self._lock:
            while self._incoming:
                job, future = self._incoming.popleft()
                self._futures[job.spec.world_id] = future
                self._pending.append(job)

    def _assign(self) -> None:
        if self._ledger.is_paused(time.monotonic()):
            return
        for slot in self._slots:
            if not slot.is_loaded or slot.suspect is not None or "make" in slot.calls or len(slot.calls) > 1:
                continue
            job = self._next_job(is_empty=not slot.calls, slot=slot)
            if job is not None:
                self._send(slot, job)

    def _send(self, slot: _Slot, job: Job) -> None:
        limit_s = self._settings.world_deadline_s
        log.debug("worker %d: makes %s", slot.number, job.spec.name)
        ref = slot.actor.make.remote(job.spec, job.start(time.monotonic()))
        slot.calls["make"] = self._call(ref, "make", limit_s, job)
        self._announce(slot, job)

    def _announce(self, slot: _Slot, job: Job) -> None:
        """Let a worker read the photograph of the world that is likely to be its next; nobody waits for that."""
        likely = len(self._slots) - 1  # the others begin one each before this worker is free again
        if job.alone or job.deaths:  # should its worker die again, no other photograph may be the reason
            return
        if likely < len(self._pending) and not self._pending[likely].alone:
            slot.actor.expect.remote(self._pending[likely].spec)

    def _next_job(self, *, is_empty: bool, slot: _Slot) -> Job | None:
        """The first world that may start now; one to be made alone needs an empty worker and keeps it to itself."""
        if any(job.alone for job in slot.jobs()):
            return None
        now = time.monotonic()
        for index, job in enumerate(self._pending):
            if job.not_before_s <= now and (is_empty or not job.alone):
                del self._pending[index]
                return job
            if index >= 64:  # a long queue of waiting retries must not make each assignment a scan of everything
                return None
        return None

    def _collect(self) -> None:
        import ray

        by_ref = {call.ref: (slot, call) for slot in self._slots for call in slot.calls.values()}
        if not by_ref:
            time.sleep(TICK_S / 5)
            return
        ready, _ = ray.wait(list(by_ref), num_returns=1, timeout=TICK_S if not self._has_idle() else TICK_S / 10)
        for ref in ready:
            slot, call = by_ref[ref]
            try:
                result = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                self._bury(slot, f"the worker raised outside a world: {error}")
            except ray.exceptions.RayError as error:  # its process is gone, whatever Ray calls the way it went
                self._bury(slot, f"the worker process died ({cause_of_death(error)})")
            else:
                slot.calls.pop(call.what)
                self._returned(slot, call, result)

    def _has_idle(self) -> bool:
        return any(slot.is_loaded and "make" not in slot.calls and len(slot.calls) < 2 for slot in self._slots)

    def _returned(self, slot: _Slot, call: _Call, result: Any) -> None:
        log.debug("worker %d: %s returned %s", slot.number, call.what, type(result).__name__)
        if call.what == "arrive":
            ref = slot.actor.load.remote(self._config)
            slot.calls["load"] = self._call(ref, "load", self._settings.load_deadline_s)
        elif call.what == "load":
            self._loaded(slot, result)
        elif call.what == "canary":
            self._canary_returned(slot, result)
        elif isinstance(result, Failure):
            self._world_failed(call.job, result)
        elif isinstance(result, Waiting):
            self._ledger.waits(result.reason, time.monotonic())
            self._finish(slot, call.job)
        elif call.what == "make":
            self._ledger.store_answered()
            self._finish(slot, call.job)
        elif call.job is not None:
            self._ledger.succeeded()
            self._resolve(call.job, result)

    def _finish(self, slot: _Slot, job: Job | None) -> None:
        """Ask for a made world; asked again, with a new deadline, while its worker waits for storage."""
        if job is not None:
            ref, what = slot.actor.finish.remote(job.spec.world_id), f"finish {job.spec.world_id}"
            slot.calls[what] = self._call(ref, what, self._settings.world_deadline_s, job)

    def _loaded(self, slot: _Slot, failure: Failure | None) -> None:
        if failure is not None and failure.blames_store:
            raise store_failure(failure.message)
        if failure is not None:
            self._load_failed(slot, failure.message)
            return
        self._load_failures = 0
        slot.is_loaded = True

    def _load_failed(self, slot: _Slot, message: str) -> None:
        self._remove(slot)
        self._load_failures += 1
        if self._load_failures >= self._ledger.policy.max_load_failures:
            raise WorkerLoadError(f"no worker could load its models: {message}")
        self._spawn()

    def _world_failed(self, job: Job | None, failure: Failure) -> None:
        if job is None:
            return
        if self._ledger.failed(job, failure, time.monotonic()) is Verdict.REJECT:
            self._reject(job)
        else:
            self._pending.append(job)

    def _bury(self, slot: _Slot, message: str) -> None:
        """A worker died or was killed: replace it and give its worlds their verdicts."""
        log.debug("worker %d: %s", slot.number, message)
        if "load" in slot.calls or "arrive" in slot.calls:
            self._load_failed(slot, f"{message} while it loaded")
            return
        suspect = slot.suspect
        jobs = slot.jobs()
        self._remove(slot)
        if suspect is not None:
            raise PoolBrokenError(
                f"workers keep dying: {message}, also on a built-in picture, so no seed is to blame; "
                f"look at the machine, its memory and the model (lyra doctor), then run the same command again"
            )
        failure = Failure(permanent=False, stage="worker", error_type="WorkerError", message=message)
        self._spawn()
        for job in jobs:
            verdict = self._ledger.died(job, failure, alone=len(jobs) == 1)
            if verdict is Verdict.REJECT:
                self._reject(job)
            elif verdict is Verdict.CANARY:
                self._slots[-1].suspect = job
            else:
                self._pending.appendleft(job)
        self._stop_if_broken()

    def _canary_returned(self, slot: _Slot, failure: Failure | None) -> None:
        suspect, slot.suspect = slot.suspect, None
        if failure is not None:
            raise PoolBrokenError(f"a worker cannot make even a built-in picture: {failure.message}")
        if suspect is not None:
            self._ledger.rejected_by_death()
            self._reject(suspect)
            self._stop_if_broken()

    def _stop_if_broken(self) -> None:
        if self._ledger.is_broken():
            raise PoolBrokenError(
                f"{self._ledger.consecutive_death_rejects} worlds in a row killed their workers; "
                f"look at their rejects, then run again, with --retry-rejects if the machine was at fault"
            )

    def _remove(self, slot: _Slot) -> None:
        import ray

        ray.kill(slot.actor, no_restart=True)
        self._slots.remove(slot)

    def _expire(self) -> None:
        """Kill actors past a deadline (cancelling a running call frees nothing) and start canaries."""
        now = time.monotonic()
        self._tell_of_waiting(now)
        for slot in list(self._slots):
            late = next((call for call in slot.calls.values() if call.deadline_s < now), None)
            if late is not None:
                self._bury(slot, f"no answer within {late.limit_s:g} s (a hang)")
            elif slot.is_loaded and slot.suspect is not None and not slot.calls:
                ref = slot.actor.canary.remote()
                slot.calls["canary"] = self._call(ref, "canary", self._settings.world_deadline_s)

    def _tell_of_waiting(self, now: float) -> None:
        """Say once that the cluster has no room for some workers; the others go on meanwhile."""
        started = sum("arrive" not in slot.calls for slot in self._slots)
        if now < self._patient_until_s or started == len(self._slots) or self._has_room():
            return
        self._patient_until_s = math.inf
        log.warning(
            "%d of %d workers have started, and the Ray cluster has no room for more (%g CPUs and %g GPUs each); %s. "
            "Free some, add a node, or run fewer --workers",
            started,
            len(self._slots),
            self._settings.cpus_per_worker,
            self._settings.gpus_per_worker,
            "these go on without the others" if started else "nothing can be made until then",
        )

    def _has_room(self) -> bool:
        """Whether one more actor would fit into the cluster now."""
        import ray

        free = ray.available_resources()
        needs = {"CPU": self._settings.cpus_per_worker, "GPU": self._settings.gpus_per_worker}
        return all(free.get(name, 0.0) >= amount for name, amount in needs.items())

    def _reject(self, job: Job) -> None:
        self._resolve(
            job,
            Outcome(spec=job.spec, kind="rejected", failure=job.last_failure, attempts=job.attempts),
        )

    def _resolve(self, job: Job, outcome: Outcome) -> None:
        self._futures.pop(job.spec.world_id).set_result(outcome)


def cause_of_death(error: Exception) -> str:
    """Ray's name for the way a worker went, with its first sentence where that is the machine's fault."""
    import ray

    name = type(error).__name__
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return f"{name}: Ray's memory monitor ended it because this machine's memory ran out; run fewer --workers"
    if isinstance(error, ray.exceptions.RayActorError):
        return name
    first = str(error).strip().partition("\n")[0][:200]
    return f"{name}: {first}" if first else name


def start_ray(settings: RaySettings) -> None:
    """Start a private local cluster, or join an existing one.

    Raises:
        ConfigError: the cluster cannot be joined; the message names the likely causes.
        MissingExtraError: Ray is not installed.
    """
    require("ray", "dispatching worlds to several workers")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray would otherwise override CUDA_VISIBLE_DEVICES of actors without a GPU and warn about it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if settings.address == "local" and "ray" not in sys.modules:
        # A private cluster listens on all interfaces: a token of its own keeps other users of the machine out. Ray
        # reads both variables once, when it is imported.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    path = [settings.factory_root, settings.model_path]
    if settings.address == "local":
        # Ray puts the folder it is started from first on its workers' import path, and the user's may hold a tasks.py.
        with contextlib.chdir(settings.factory_root):
            ray.init(
                address="local",
                num_cpus=max(1, round(settings.num_workers * settings.cpus_per_worker)),
                object_store_memory=128 * 2**20,  # only specs and receipts pass through it
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, path))}},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        return
    try:
        ray.init(
            address=settings.address,
            runtime_env={
                "working_dir": settings.factory_root,
                "env_vars": {"PYTHONPATH": settings.model_path},
                "excludes": [".git", ".venv", "worlds", "tests", "docs"],
            },
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        exported = " (from RAY_ADDRESS)" if os.environ.get("RAY_ADDRESS") == settings.address else ""
        raise ConfigError(
            f"Ray: wanted to join the cluster at {settings.address!r}{exported}, found {type(error).__name__}: "
            f"{error}; check that it is up (ray status), that Ray {ray.__version__} is the version it runs, "
            f"and, where it requires a token, that RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or ~/.ray/auth_token are set"
        ) from error
