"""Processes that prepare scenes and textures before a training run, which so starts in seconds and not in minutes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

SPARE_CORES = 2
MAX_WORKERS = 12


def _one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def preparing(count: int | None = None) -> Iterator[Executor | None]:
    """Processes for the time of a `with` block; None where there would be fewer than two.

    Args:
        count: processes; None for most of the machine's.
    """
    num_workers = min(MAX_WORKERS, (os.cpu_count() or 1) - SPARE_CORES) if count is None else count
    if num_workers < 2:
        yield None
        return
    # forked before this process computes anything, workers are there at once with everything imported
    way = "forkserver" if torch.cuda.is_initialized() or threading.active_count() > 1 else "fork"
    with ProcessPoolExecutor(num_workers, mp_context=get_context(way), initializer=_one_thread) as pool:
        pool.submit(_one_thread).result()
        yield pool


def spread(function: Callable[[Item], Result], items: Sequence[Item], workers: Executor | None) -> list[Result]:
    """`function` of every item, in order, by the workers where there are some; both must be picklable then."""
    if workers is None:
        return [function(item) for item in items]
    return list(workers.map(function, items, chunksize=4))
