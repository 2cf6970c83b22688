"""The pool without Ray: one worker in this process. Same worlds, same catalog; no isolation from a crash or a hang."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from lyra_core.errors import LyraError, PoolBrokenError, StoreError, WorkerLoadError
from lyra_core.spec import WorldSpec
from tasks.ledger import Job, Ledger, Verdict, store_failure
from tasks.outcome import Failure, Outcome, Waiting
from tasks.worker import Worker, guarded_load
from tasks.worker_config import WorkerConfig

PAUSE_POLL_S = 0.5


class InlinePool:
    """Makes worlds in a thread of this process; encoding and upload overlap the next world as on an actor."""

    def __init__(self, config: WorkerConfig, ledger: Ledger, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config, self._ledger, self._sleep = config, ledger, sleep
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="make")
        self._collector = ThreadPoolExecutor(1, thread_name_prefix="collect")
        self._closing = threading.Event()
        self._worker: Worker | None = None
        self._queue: deque[Job] = deque()
        self._broken: LyraError | None = None

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
        self._enqueue(Job(spec=spec, deaths=past_deaths), outcome)
        return outcome

    def _enqueue(self, job: Job, outcome: Future[Outcome]) -> None:
        self._queue.append(job)
        self._threads.submit(self._make, job, outcome)

    def close(self) -> None:
        """Finish the world in hand, drop the queue."""
        self._closing.set()
        if self._worker is not None:
            self._worker.give_up()
        self._threads.shutdown(wait=True, cancel_futures=False)
        self._collector.shutdown(wait=True)
        if self._worker is not None:
            self._worker.close()

    def _load(self) -> Worker:
        if self._worker is None:
            loaded = guarded_load(lambda: Worker(self._config))
            if isinstance(loaded, Failure) and loaded.blames_store:
                raise store_failure(loaded.message)
            if isinstance(loaded, Failure):
                raise WorkerLoadError(f"no worker could load its models: {loaded.message}")
            self._worker = loaded
        return self._worker

    def _make(self, job: Job, outcome: Future[Outcome]) -> None:
        self._queue.remove(job)
        while self._ledger.is_paused(time.monotonic()) and not self._is_over():
            self._sleep(PAUSE_POLL_S)
        if self._is_over():
            self._end(outcome)
            return
        try:
            worker = self._load()
        except (StoreError, WorkerLoadError) as error:
            self._broken = error
            self._end(outcome)
            return
        if self._queue:
            worker.expect(self._queue[0].spec)
        failure = worker.make(job.spec, job.start(time.monotonic()))
        if failure is None:
            self._ledger.store_answered()
            self._collector.submit(self._collect, worker, job, outcome)
        else:
            self._decide(job, failure, outcome)

    def _collect(self, worker: Worker, job: Job, outcome: Future[Outcome]) -> None:
        while isinstance(result := worker.finish(job.spec.world_id), Waiting):
            self._ledger.waits(result.reason, time.monotonic())
        if isinstance(result, Failure):
            self._decide(job, result, outcome)
        else:
            self._ledger.succeeded()
            outcome.set_result(result)

    def _decide(self, job: Job, failure: Failure, outcome: Future[Outcome]) -> None:
        now = time.monotonic()
        try:
            verdict = self._ledger.failed(job, failure, now)
        except StoreError as error:
            self._broken = error
            self._end(outcome)
            return
        if verdict is Verdict.REJECT:
            outcome.set_result(Outcome(spec=job.spec, kind="rejected", failure=failure, attempts=job.attempts))
            return
        self._sleep(max(0.0, job.not_before_s - now))
        if self._is_over():
            self._end(outcome)
        else:
            self._enqueue(job, outcome)

    def _is_over(self) -> bool:
        return self._broken is not None or self._closing.is_set()

    def _end(self, outcome: Future[Outcome]) -> None:
        """The end of a world that was not made, for no fault of its own."""
        outcome.set_exception(self._broken or PoolBrokenError("the pool was closed before this world was made"))
