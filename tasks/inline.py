"""The pool without Ray: one worker in this process. Same worlds, same catalog; no isolation from a crash or a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from lyra_core.errors import PoolBrokenError, WorkerLoadError
from lyra_core.spec import WorldSpec
from tasks.ledger import Job, Ledger, Verdict
from tasks.outcome import Failure, Outcome
from tasks.worker import Worker, guarded_load
from tasks.worker_config import WorkerConfig


class InlinePool:
    """Makes worlds in a thread of this process; encoding and upload overlap the next world as on an actor."""

    def __init__(self, config: WorkerConfig, ledger: Ledger, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config, self._ledger, self._sleep = config, ledger, sleep
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="make")
        self._collector = ThreadPoolExecutor(1, thread_name_prefix="collect")
        self._closing = threading.Event()
        self._worker: Worker | None = None
        self._load_error: WorkerLoadError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(self, spec: WorldSpec, past_deaths: int = 0) -> Future[Outcome]:
        """Queue a world."""
        outcome: Future[Outcome] = Future()
        self._threads.submit(self._make, Job(spec=spec, deaths=past_deaths), outcome)
        return outcome

    def close(self) -> None:
        """Finish the world in hand, drop the queue."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=False)
        self._collector.shutdown(wait=True)
        if self._worker is not None:
            self._worker.close()

    def _load(self) -> Worker:
        if self._worker is None:
            loaded = guarded_load(lambda: Worker(self._config))
            if isinstance(loaded, Failure):
                raise WorkerLoadError(f"no worker could load its models: {loaded.message}")
            self._worker = loaded
        return self._worker

    def _make(self, job: Job, outcome: Future[Outcome]) -> None:
        if self._closing.is_set():
            outcome.set_exception(PoolBrokenError("the pool was closed before this world was made"))
            return
        try:
            worker = self._load()
        except WorkerLoadError as error:
            outcome.set_exception(error)
            return
        failure = worker.make(job.spec)
        if failure is None:
            self._collector.submit(self._collect, worker, job, outcome)
        else:
            self._decide(job, failure, outcome)

    def _collect(self, worker: Worker, job: Job, outcome: Future[Outcome]) -> None:
        result = worker.finish(job.spec.world_id)
        if isinstance(result, Failure):
            self._decide(job, result, outcome)
        else:
            self._ledger.succeeded()
            outcome.set_result(result)

    def _decide(self, job: Job, failure: Failure, outcome: Future[Outcome]) -> None:
        now = time.monotonic()
        if self._ledger.failed(job, failure, now) is Verdict.REJECT:
            outcome.set_result(Outcome(spec=job.spec, kind="rejected", failure=failure, attempts=job.attempts))
            return
        self._sleep(max(0.0, job.not_before_s - now))
        if self._closing.is_set():
            outcome.set_exception(PoolBrokenError("the pool was closed before this world was made"))
        else:
            self._threads.submit(self._make, job, outcome)
