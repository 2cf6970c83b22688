"""Compile numba kernels once, cached on disk where a cache can be written and in memory where it cannot."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import torch


def jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator like `numba.njit` whose disk cache is optional.

    Numba refuses to decorate (RuntimeError) when neither the package's folder nor the user's cache
    folder is writable, as in read-only containers; there the kernel is compiled once a process.
    Wrappers that a shape-checking import hook put around the kernel are taken off: they cannot be compiled.
    """

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        bare = inspect.unwrap(kernel)
        try:
            return numba.njit(cache=True, error_model="numpy", **options)(bare)
        except RuntimeError:
            return numba.njit(error_model="numpy", **options)(bare)

    return decorate


@contextmanager
def kernel_threads() -> Iterator[int]:
    """Run parallel kernels on as many threads as torch uses, and leave torch's number as it was.

    Numba's OpenMP layer sets the number of threads for the whole process at every launch: without this, torch would
    compute with another number of threads, round differently, and on a crowded machine be several times slower after
    the first kernel than before it.

    Yields:
        The number of threads kernels run on.
    """
    threads, before = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield numba.get_num_threads()
    finally:
        numba.set_num_threads(before)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
