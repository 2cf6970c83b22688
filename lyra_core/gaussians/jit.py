"""Compile numba kernels once, cached on disk where a cache can be written and in memory where it cannot."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


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
