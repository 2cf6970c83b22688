"""What a pool of workers offers to whoever has worlds to make."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self

from lyra_core.spec import WorldSpec
from tasks.outcome import Outcome


class Pool(Protocol):
    """Makes worlds; every submitted world's future ends with an Outcome, or with PoolBrokenError or WorkerLoadError."""

    def submit(self, spec: WorldSpec, past_deaths: int = 0) -> Future[Outcome]:
        """Queue a world."""
        ...

    def close(self) -> None:
        """Free the workers; waiting futures end with PoolBrokenError."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
