"""Signals that end a pipeline: its processes first, then itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lyra_core.training.pipeline.scheduler import Pipeline

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopping(pipeline: Pipeline) -> Iterator[None]:
    """End the pipeline in order, its processes first, when this process is asked to end."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        # whoever started this with nohup wants it to outlive the terminal
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: pipeline.stop(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
