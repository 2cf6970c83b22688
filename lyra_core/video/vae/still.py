"""Runs the autoencoder over a picture that stands still, and computes nothing twice: the numbers of the plain run.

A world begins with its photograph repeated for 97 frames. Every layer sees only a few frames of the past, so layer by
layer what comes out is soon what came out before; the deep layers, which are cheap, are the last to settle
(`run_still`). Of the decoder only what it remembers is wanted, and a layer remembers two frames: the wide layers, which
are dear, need to see only the end (`run_trailing`).

Legend: b batch, c channels, t frames, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from lyra_core.video.vae.layers import CausalCache, Upsample


@dataclass(frozen=True, slots=True)
class _Run:
    """What a layer was given, what it remembered before (up to the entry `stop`), and what it gave."""

    window: Tensor
    before: list[Tensor]
    stop: int
    output: Tensor


def run_still(layers: Sequence[nn.Module], windows: Sequence[Tensor], cache: CausalCache) -> list[Tensor]:
    """Outputs of layers for windows one after the other; a window that comes again is the same tensor object.

    A layer that is given the tensor it was given before, and remembers what it remembered before, gives again what it
    gave: equal bits.
    """
    known: dict[int, _Run] = {}
    outputs = []
    for window in windows:
        cache.begin_window()
        x = window
        for index, layer in enumerate(layers):
            x = _run_or_repeat(known, index, layer, x, cache)
        outputs.append(x)
    return outputs


def _run_or_repeat(known: dict[int, _Run], index: int, layer: nn.Module, x: Tensor, cache: CausalCache) -> Tensor:
    start, last = cache.position, known.get(index)
    before = [] if last is None else cache.entries(start, last.stop)
    if last is not None and last.window is x and _are_equal(last.before, before):
        cache.skip_to(last.stop)
        return last.output
    output = cast("Tensor", layer(x, cache))
    known[index] = _Run(x, before, cache.position, output)
    return output


def _are_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def run_trailing(layers: Sequence[nn.Module], windows: Sequence[Tensor], cache: CausalCache) -> None:
    """Leave a fresh cache as all windows would, running each layer only on the last ones that it needs."""
    needed = needed_windows(layers, len(windows))
    for index, window in enumerate(windows):
        cache.begin_window()
        x, left = window, len(windows) - index
        for layer, count in zip(layers, needed, strict=True):
            if left > count:
                break
            if left == count and index > 0 and isinstance(layer, Upsample):
                layer.begin_late(x, cache)
            x = layer(x, cache)


def needed_windows(layers: Sequence[nn.Module], num_windows: int) -> list[int]:
    """For each layer, on how many of the last windows it has to run so that all entries in the end are exact.

    A layer that starts late is exact once the frames it looks back at are behind it; windows have one frame at the
    first layer and twice as many behind every upsampling in time.
    """
    rates, rate = [], 1
    for layer in layers:
        rates.append(rate)
        rate *= 2 if isinstance(layer, Upsample) and layer.time_conv is not None else 1
    needed: list[int] = []
    exact = 0
    for layer, frames in zip(reversed(layers), reversed(rates), strict=True):
        exact += -(-cast("int", layer.memory_frames) // frames)
        needed.append(min(exact, num_windows))
    return needed[::-1]
