"""Waits for a store that fails: tries again with growing pauses, until it answers or a deadline has passed.

A store that is away for a minute says nothing about the work in hand, so no world is rejected for it. What waiting does
not mend (no permission, no such bucket, a malformed catalog) is raised at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lyra_core.errors import CatalogError, StoreError, StoreRefusedError

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
DEFAULT_DEADLINE_S = 600.0
# Many workers meet the same outage at once; without this they would all come back at the same moments.
_JITTER = random.SystemRandom()


def is_worth_waiting(error: StoreError) -> bool:
    """Whether the same request may succeed later."""
    return not isinstance(error, (StoreRefusedError, CatalogError))


class Patience:
    """Runs work that needs a store; shared by the threads of a worker.

    Args:
        deadline_s: how long a store may fail in a row.
        on_wait: called with a sentence when the waiting begins.
        stop: set to give up at once, with the last error.
    """

    def __init__(
        self,
        deadline_s: float = DEFAULT_DEADLINE_S,
        on_wait: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        self.deadline_s = deadline_s
        self._on_wait = on_wait
        self._stop = stop or threading.Event()
        self._waiting: dict[int, str] = {}

    @property
    def waiting(self) -> str | None:
        """Why some thread waits at this moment, or None."""
        return next(iter(list(self._waiting.values())), None)

    def run(self, work: Callable[[], T]) -> T:
        """The result of the work, tried again while the store fails.

        The work must bear being done twice: the reply to a write that worked may have been lost.

        Raises:
            StoreError: the store still fails after the deadline, or refuses.
        """
        since, pause = 0.0, FIRST_PAUSE_S
        thread = threading.get_ident()
        try:
            while True:
                try:
                    return work()
                except StoreError as error:
                    since = since or time.monotonic()
                    waited = time.monotonic() - since
                    if not is_worth_waiting(error):
                        raise
                    if waited >= self.deadline_s or self._stop.is_set():
                        raise StoreError(f"{error} (waited {waited:.0f} s for it)") from error
                    if thread not in self._waiting:
                        self._on_wait(f"waiting up to {self.deadline_s:.0f} s for storage: {error}")
                    self._waiting[thread] = f"{error} (for {waited:.0f} of {self.deadline_s:.0f} s)"
                self._stop.wait(min(pause * _JITTER.uniform(0.5, 1.0), self.deadline_s - waited))
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._waiting.pop(thread, None)
