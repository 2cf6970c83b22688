"""Work of the next steps done beside the present one: on a thread of its own and, on a GPU, a stream of its own.

Results are taken at steps known beforehand, so a run does not depend on how fast either side is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")


class Prefetch(Generic[Result]):
    """One piece of work at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="beside")
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.pending: Future[Result] | None = None

    def start(self, work: Callable[[], Result]) -> None:
        """Begin; what the caller has asked of the device so far is finished first."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        self.pending = self.thread.submit(self._run, work)

    def take(self) -> Result | None:
        """What was begun last, or None; its errors are raised here."""
        if self.pending is None:
            return None
        result = self.pending.result()
        self.pending = None
        if self.stream is not None:
            # memory of the results is used again by later work on the same stream only, which waits for the caller
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return result

    def settle(self) -> None:
        """Wait for what runs, and leave its result to be taken.

        A CUDA graph is recorded only then: calls of another thread have spoilt a recording (one start of four).
        """
        if self.pending is not None:
            wait([self.pending])
        if self.stream is not None:
            self.stream.synchronize()

    def close(self) -> None:
        """Wait for what runs and end the thread."""
        self.thread.shutdown()

    def _run(self, work: Callable[[], Result]) -> Result:
        if self.stream is None:
            return work()
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.cuda.device(self.device))
            stack.enter_context(torch.cuda.stream(self.stream))
            return work()
