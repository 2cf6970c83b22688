"""The policy of blame: which world is retried, which is rejected, and when the batch itself must end.

* A permanent error rejects at once; a transient one is retried with backoff.
* Storage that fails blames no world: nothing new is started until it answers; where it fails for longer than its
  deadline, or refuses, the batch ends without rejects.
* A death or a hang names the one world that was being made. Two deaths reject it, but only on evidence that workers can
  work at all: some world succeeded since its first death, or a canary (a built-in picture) did.
* If the canary dies too, no world is rejected and the pool is broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from lyra_core.errors import StoreError
from lyra_core.formats.patience import DEFAULT_DEADLINE_S
from lyra_core.spec import WorldSpec
from tasks.outcome import Failure, Start

STORE_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes:
        max_transient: attempts at a world whose errors are transient.
        max_deaths: deaths or hangs of a worker on one world.
        backoff_s: pause before the second attempt; it doubles.
        max_consecutive_death_rejects: rejects by death in a row, without a success, that break the pool. It is above
            max_deaths so that one poison seed can never break it.
        max_load_failures: workers in a row that may fail to load before the pool gives up.
        store_deadline_s: how long storage may fail in a row before the batch ends.
    """

    max_transient: int = 3
    max_deaths: int = 2
    backoff_s: float = 1.0
    max_consecutive_death_rejects: int = 8
    max_load_failures: int = 3
    store_deadline_s: float = DEFAULT_DEADLINE_S


class Verdict(Enum):
    """What to do with a world after an attempt failed."""

    RETRY = "retry"
    RETRY_ALONE = "retry alone"
    REJECT = "reject"
    CANARY = "canary"


@dataclass(slots=True)
class Job:
    """A world on its way through a pool.

    Attributes:
        attempts: failed attempts so far that count against the world.
        deaths: deaths so far, those of earlier runs included.
        not_before_s: monotonic time before which it must wait.
        alone: no other world may share its worker, so that a death names it beyond doubt.
        successes_at_first_death: the pool's successes when it first killed a worker.
        submitted_s: monotonic time at which it came to the pool.
        starts: how often it was sent to a worker, deaths in earlier runs included.
    """

    spec: WorldSpec
    attempts: int = 0
    deaths: int = 0
    not_before_s: float = 0.0
    alone: bool = False
    successes_at_first_death: int | None = None
    last_failure: Failure | None = None
    submitted_s: float = field(default_factory=time.monotonic)
    starts: int = -1

    def __post_init__(self) -> None:
        if self.starts < 0:
            self.starts = self.deaths

    def start(self, now_s: float) -> Start:
        """Count a start of this world on a worker."""
        self.starts += 1
        return Start(attempt=self.starts, queue_s=now_s - self.submitted_s)


@dataclass(slots=True)
class Ledger:
    """Counts successes and failures of a pool and gives verdicts; knows nothing of Ray or threads.

    Attributes:
        on_death: called with each death that blames a world.
        on_wait: called with a sentence when storage begins to fail, and when it answers again.
    """

    policy: RetryPolicy
    on_death: Callable[[Job, Failure], None] = lambda _job, _failure: None
    on_wait: Callable[[str], None] = lambda _sentence: None
    successes: int = 0
    consecutive_death_rejects: int = field(default=0)
    store_fails_since_s: float | None = None
    paused_until_s: float = 0.0

    def succeeded(self) -> None:
        """A world was finished."""
        self.successes += 1
        self.consecutive_death_rejects = 0
        self.store_answered()

    def store_answered(self) -> None:
        """A worker reached the storage."""
        if self.store_fails_since_s is not None:
            self.on_wait("storage answers again")
        self.store_fails_since_s, self.paused_until_s = None, 0.0

    def failed(self, job: Job, failure: Failure, now_s: float) -> Verdict:
        """An attempt returned a Failure.

        Raises:
            StoreError: storage is to blame, and waiting is over; the batch must end and reject nobody.
        """
        job.last_failure = failure
        if failure.blames_store:
            self._store_failed(failure, now_s)
            job.not_before_s = self.paused_until_s
            return Verdict.RETRY
        job.attempts += 1
        if failure.permanent or job.attempts >= self.policy.max_transient:
            return Verdict.REJECT
        job.not_before_s = now_s + self.policy.backoff_s * 2 ** (job.attempts - 1)
        return Verdict.RETRY

    def waits(self, reason: str, now_s: float) -> None:
        """A worker waits for storage with a finished world: nothing new is started meanwhile."""
        if self.store_fails_since_s is None:
            self.store_fails_since_s = now_s
            self.on_wait(
                f"storage fails, no new world is started for up to {self.policy.store_deadline_s:.0f} s: {reason}"
            )
        self.paused_until_s = now_s + STORE_PAUSE_S

    def is_paused(self, now_s: float) -> bool:
        """Whether storage failed a moment ago."""
        return now_s < self.paused_until_s

    def _store_failed(self, failure: Failure, now_s: float) -> None:
        since_s = now_s if self.store_fails_since_s is None else self.store_fails_since_s
        if failure.permanent or now_s - since_s > self.policy.store_deadline_s:
            raise store_failure(failure.message)
        self.waits(failure.message, now_s)

    def died(self, job: Job, failure: Failure, *, alone: bool) -> Verdict:
        """The worker died or hung while it held this world.

        Args:
            job: the world.
            failure: what is known of the death.
            alone: no other world was on the worker; only then is there blame.
        """
        job.last_failure = failure
        if not alone:
            job.alone = True
            return Verdict.RETRY_ALONE
        job.attempts += 1
        job.deaths += 1
        job.alone = True
        if job.successes_at_first_death is None:
            job.successes_at_first_death = self.successes
        self.on_death(job, failure)
        if job.deaths < self.policy.max_deaths:
            return Verdict.RETRY_ALONE
        if self.successes > job.successes_at_first_death:
            return self.rejected_by_death()
        return Verdict.CANARY

    def rejected_by_death(self) -> Verdict:
        """Count a reject by death; the caller asks is_broken() next."""
        self.consecutive_death_rejects += 1
        return Verdict.REJECT

    def is_broken(self) -> bool:
        """Too many worlds in a row killed their workers, although canaries lived."""
        return self.consecutive_death_rejects >= self.policy.max_consecutive_death_rejects


def store_failure(message: str) -> StoreError:
    """What ends a batch whose storage fails."""
    return StoreError(
        f"the batch was stopped because its storage failed: {message}. No photograph was rejected for it; run the same "
        f"command again to continue"
    )
