"""Blocks whose weights wait in host memory: while one computes, the next one's weights are copied beside it.

At full size a block is 0.8 GB in bf16 and computes for tens of milliseconds on a large GPU, in which a PCIe link copies
more than that. Two rooms on the device serve all blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lyra_core.hosted_weights import HostedWeights
from lyra_core.video.dit.block import Block

ROOMS = 2


class BlockStream:
    """The blocks of a network in their order, none of which stays on the device."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._blocks: list[Block] = []
        self._hosted: list[HostedWeights] = []
        self._rooms: list[list[Tensor]] = []
        is_cuda = self.device.type == "cuda"
        self._copies = torch.cuda.Stream(self.device) if is_cuda else None
        # reached when a room's block is there, and when it has been used
        self._there = [torch.cuda.Event() for _ in range(ROOMS)] if is_cuda else []
        self._used = [torch.cuda.Event() for _ in range(ROOMS)] if is_cuda else []

    def take(self, block: Block) -> None:
        """Move one more block to host memory; the wide half of its correspondence encoder, asked for alone, stays."""
        self._blocks.append(block)
        self._hosted.append(HostedWeights(block, self.device, stays=lambda name: name.startswith("buffer_encoder.0")))

    @property
    def num_bytes(self) -> int:
        """Of the blocks in host memory."""
        return sum(hosted.num_bytes for hosted in self._hosted)

    def in_turn(self) -> Iterator[Block]:
        """Each block with its weights on the device, until the next one is asked for."""
        if not self._rooms:
            largest = max(self._hosted, key=lambda hosted: hosted.num_bytes)
            self._rooms = [largest.room() for _ in range(ROOMS)]
            if self._copies is not None:  # what was in that memory before may still be read
                self._copies.wait_stream(torch.cuda.current_stream(self.device))
        self._bring(0)
        for index, block in enumerate(self._blocks):
            if index + 1 < len(self._blocks):
                self._bring(index + 1)
            room = index % ROOMS
            if self._copies is not None:
                torch.cuda.current_stream(self.device).wait_event(self._there[room])
            self._hosted[index].use(self._rooms[room])
            try:
                yield block
            finally:
                self._hosted[index].leave()
                if self._copies is not None:
                    self._used[room].record(torch.cuda.current_stream(self.device))

    def _bring(self, index: int) -> None:
        """Begin to copy a block into its room, once what was there has been used."""
        room = index % ROOMS
        with self._beside():
            if self._copies is not None:
                # an event that was never recorded is not waited for
                self._copies.wait_event(self._used[room])
            self._hosted[index].copy_to(self._rooms[room])
            if self._copies is not None:
                self._there[room].record(self._copies)

    def _beside(self) -> AbstractContextManager[object]:
        return nullcontext() if self._copies is None else torch.cuda.stream(self._copies)
