"""The policy of blame: which world is retried, which is rejected, and when the workers themselves are to blame.

* A permanent error rejects at once; a transient one is retried with backoff.
* A death or a hang names the one world that was being made. Two deaths reject it, but only on evidence that workers can
  work at all: some world succeeded since its first death, or a canary (a built-in picture) did.
* If the canary dies too, nobody is rejected and the pool is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from lyra_core.spec import WorldSpec
from tasks.outcome import Failure


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
    """

    max_transient: int = 3
    max_deaths: int = 2
    backoff_s: float = 1.0
    max_consecutive_death_rejects: int = 8
    max_load_failures: int = 3


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
        attempts: attempts so far.
        deaths: deaths so far, those of earlier runs included.
        not_before_s: monotonic time before which it must wait.
        alone: no other world may share its worker, so that a death names it beyond doubt.
        successes_at_first_death: the pool's successes when it first killed a worker.
    """

    spec: WorldSpec
    attempts: int = 0
    deaths: int = 0
    not_before_s: float = 0.0
    alone: bool = False
    successes_at_first_death: int | None = None
    last_failure: Failure | None = None


@dataclass(slots=True)
class Ledger:
    """Counts successes and failures of a pool and gives verdicts; knows nothing of Ray or threads."""

    policy: RetryPolicy
    on_death: Callable[[Job, Failure], None] = lambda _job, _failure: None
    successes: int = 0
    consecutive_death_rejects: int = field(default=0)

    def succeeded(self) -> None:
        """A world was finished."""
        self.successes += 1
        self.consecutive_death_rejects = 0

    def failed(self, job: Job, failure: Failure, now_s: float) -> Verdict:
        """An attempt returned a Failure."""
        job.attempts += 1
        job.last_failure = failure
        if failure.permanent or job.attempts >= self.policy.max_transient:
            return Verdict.REJECT
        job.not_before_s = now_s + self.policy.backoff_s * 2 ** (job.attempts - 1)
        return Verdict.RETRY

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
