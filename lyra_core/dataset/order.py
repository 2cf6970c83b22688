"""Which frames come when: a function of seed, epoch and shard, so that any place in it can be found again.

Frames are cut into runs that a video decodes in one go; the runs of all worlds are shuffled, divided among ranks and
their workers without overlap or loss, and within a shard frames are shuffled again in pools of several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lyra_core.formats.clip import KEY_INTERVAL

RUN_FRAMES = KEY_INTERVAL  # such a run is decoded without decoding others
POOL_FRAMES = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of the parts that the frames are divided into: first among ranks, then among a rank's workers."""

    rank: int = 0
    num_ranks: int = 1
    worker: int = 0
    num_workers: int = 1

    def bounds(self, total: int) -> tuple[int, int]:
        """First place, and the one behind the last, in an order of `total`; shards differ by one frame at most."""
        first, last = part_bounds(total, self.rank, self.num_ranks)
        start, stop = part_bounds(last - first, self.worker, self.num_workers)
        return first + start, first + stop


def part_bounds(total: int, part: int, parts: int) -> tuple[int, int]:
    """Bounds of one of several parts of a sequence; the first ones are longer by one where it does not divide."""
    size, more = divmod(total, parts)
    start = part * size + min(part, more)
    return start, start + size + (part < more)


def epoch_order(
    num_frames: Sequence[int], *, every: int, seed: int | None, epoch: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Index of the item (a world, or a world's new path) and frame number, in the order of an epoch.

    Args:
        num_frames: of each item.
        every: 1 for all frames, 2 for every other one, ...
        seed: of the shuffle; None keeps items and frames in order.
        epoch: 0, 1, 2, ...
    """
    items, frames = [], []
    for item, count in enumerate(num_frames):
        for start in range(0, count, RUN_FRAMES):
            # The first multiple of `every` in the run.
            run = np.arange(-(-start // every) * every, min(start + RUN_FRAMES, count), every, dtype=np.int64)
            if len(run):
                items.append(np.full(len(run), item, np.int64))
                frames.append(run)
    order = np.arange(len(items))
    if seed is not None:
        np.random.default_rng([seed, epoch]).shuffle(order)
    if not len(order):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([items[i] for i in order]), np.concatenate([frames[i] for i in order])


def pools(start: int, stop: int, *, seed: int | None, epoch: int) -> list[Int64[np.ndarray, " n"]]:
    """Places of a shard in the order they are shown in, pool by pool."""
    found = []
    for first in range(start, stop, POOL_FRAMES):
        places = np.arange(first, min(first + POOL_FRAMES, stop), dtype=np.int64)
        if seed is not None:
            np.random.default_rng([seed, epoch, first]).shuffle(places)
        found.append(places)
    return found
