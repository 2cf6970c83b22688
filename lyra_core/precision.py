"""In what numbers a small network computes: bfloat16 where this machine multiplies it faster, else float32.

Processors with matrix units for bfloat16 (AMX, and GPUs) are several times as fast with it; others convert every number
first and are slower. Names of features do not tell (a library may not use them), so one product is timed. Like the
device, precision is no part of a world's id: pixels change by less than another noise would change them.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from lyra_core.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]

MIN_SPEEDUP = 1.3
"""Below, the conversions around products eat the gain."""
REPEATS = 5
SHAPES = ((1024, 256), (256, 768))
"""A product like those of the mini network: milliseconds in either precision."""


def choose_dtype(precision: str, device: str | torch.device) -> torch.dtype:
    """The dtype of a network's weights on a device.

    Raises:
        RecipeError: another word than auto, float32 or bfloat16.
    """
    if precision == "float32":
        return torch.float32
    if precision == "bfloat16":
        return torch.bfloat16
    if precision != "auto":
        raise RecipeError(f"precision should be auto, float32 or bfloat16, found {precision!r}")
    if torch.device(device).type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if bfloat16_speedup() >= MIN_SPEEDUP else torch.float32


@cache
def bfloat16_speedup() -> float:
    """How many times as fast as in float32 this processor multiplies matrices of bfloat16; some milliseconds, once."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=draw) for shape in SHAPES)
    return _seconds(left, right) / _seconds(left.bfloat16(), right.bfloat16())


def _seconds(left: Tensor, right: Tensor) -> float:
    """Of one product, the best of some: others may be using the processor."""
    torch.mm(left, right)
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - begin)
    return min(times)
