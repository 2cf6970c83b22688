"""Several devices for one world: this process leads, and one process a further device follows.

    leader      prepare_context, prepare_text, forward -- what was called, tensors --> followers
    all         compute the same call on their share of the tokens (lyra_core.video.dit.exchange)
    leader      has the result

Every process has a whole network of its own. Followers end with their leader.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lyra_core.errors import RecipeError
from lyra_core.video.dit.attention import KeyValue
from lyra_core.video.dit.block import Store
from lyra_core.video.dit.context import ChunkInputs, PreparedContext
from lyra_core.video.dit.exchange import Share
from lyra_core.video.dit.layout import HistoryLayout

Captions = tuple[KeyValue, ...]

PATIENCE = timedelta(days=30)
"""Followers wait for the next call as long as a batch may pause."""


@runtime_checkable
class Shared(Protocol):
    """A network that several processes compute together: lyra_core.video.dit.network.DiT."""

    share: Share | None
    team: Team | None

    def prepare_context(
        self, inputs: ChunkInputs, *, layout: HistoryLayout | None = None, store: Store | None = None
    ) -> PreparedContext:
        """See DiT."""
        ...

    def prepare_text(self, text: Tensor) -> Captions:
        """See DiT."""
        ...

    def forward(self, latents: Tensor, timestep: Tensor, context: PreparedContext) -> Tensor:
        """See DiT."""
        ...


Network = TypeVar("Network", bound=Shared)


class Team:
    """The followers, as their leader sees them.

    One chunk is in hand at a time: preparing the next one lets all processes forget the one before.
    """

    def __init__(self, processes: list[BaseProcess]) -> None:
        self.processes = processes
        self.captions: list[Captions] = []
        self._depth = 0

    @contextmanager
    def calls(self, name: str, *arguments: object) -> Iterator[None]:
        """Let the followers do what the leader does inside; calls within calls are part of the outer one."""
        self._depth += 1
        try:
            if self._depth == 1:
                _send(name, arguments)
            yield
        finally:
            self._depth -= 1

    def number_of(self, context: PreparedContext) -> int:
        """Which of the captions of the chunk in hand a context has.

        Raises:
            RecipeError: of another chunk, or of several captions at once.
        """
        for number, captions in enumerate(self.captions):
            if captions is context.text:
                return number
        raise RecipeError("several devices make one chunk at a time, with one caption at a time; prepare it anew")

    def close(self) -> None:
        """Let the followers end."""
        _send("stop", ())
        for process in self.processes:
            process.join(timeout=30)
        dist.destroy_process_group()


def lead(make: Callable[[str], Network], devices: list[str]) -> Network:
    """The network on the first device, which computes together with those of the others.

    Args:
        make: makes the network of each process on its device; other processes must be able to import it.
        devices: of the leader and of each follower.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    context = mp.get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_follow, args=(make, devices, rank, port), daemon=True)
        for rank in range(1, len(devices))
    ]
    for process in processes:
        process.start()
    dit = _joined(make, devices, 0, port)
    dit.team = Team(processes)
    return dit


def _joined(make: Callable[[str], Network], devices: list[str], rank: int, port: int) -> Network:
    """Enter the group and make the network."""
    device = torch.device(devices[rank])
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    store = dist.TCPStore("127.0.0.1", port, len(devices), is_master=rank == 0, timeout=timedelta(minutes=30))
    dist.init_process_group(backend, store=store, rank=rank, world_size=len(devices), timeout=PATIENCE)
    dit = make(devices[rank])
    dit.share = Share.of()
    return dit


@torch.no_grad()
def _follow(make: Callable[[str], Shared], devices: list[str], rank: int, port: int) -> None:
    """Do what the leader does until it says stop or is gone."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // (2 * len(devices))))
    dit = _joined(make, devices, rank, port)
    device = torch.device(devices[rank])
    chunk: PreparedContext | None = None
    captions: list[Captions] = []
    while True:
        try:
            name, arguments = _receive(device)
        except RuntimeError:  # the leader is gone
            return
        if name == "stop":
            dist.destroy_process_group()
            return
        if name == "prepare_context":
            inputs, layout, store = arguments
            chunk = None  # before the next one is made
            chunk = dit.prepare_context(inputs, layout=layout, store=store)
            captions = [chunk.text]
        elif name == "prepare_text":
            captions.append(dit.prepare_text(*arguments))
        elif chunk is not None:
            latents, timestep, number = arguments
            dit.forward(latents, timestep, chunk.with_text(captions[number]))


def _send(name: str, arguments: tuple[object, ...]) -> None:
    """Tell all followers of a call: its form through host memory, its tensors from device to device."""
    tensors: list[Tensor] = []
    plain = [_without_tensors(argument, tensors) for argument in arguments]
    shapes = [(tuple(t.shape), t.dtype) for t in tensors]
    dist.broadcast_object_list([(name, plain, shapes)], src=0, device=torch.device("cpu"))
    for tensor in tensors:
        dist.broadcast(tensor.contiguous(), src=0)


def _receive(device: torch.device) -> tuple[str, list[Any]]:
    told: list[Any] = [None]
    dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    name, plain, shapes = told[0]
    tensors = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in shapes]
    for tensor in tensors:
        dist.broadcast(tensor, src=0)
    given = iter(tensors)
    return name, [_with_tensors(argument, given) for argument in plain]


class _Place:
    """Stands for a tensor that travels by itself."""


def _without_tensors(argument: object, tensors: list[Tensor]) -> object:
    if isinstance(argument, Tensor):
        tensors.append(argument)
        return _Place()
    if isinstance(argument, ChunkInputs):
        return {field.name: _without_tensors(getattr(argument, field.name), tensors) for field in fields(ChunkInputs)}
    return argument


def _with_tensors(argument: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(argument, _Place):
        return next(tensors)
    if isinstance(argument, dict):
        return ChunkInputs(**{name: _with_tensors(value, tensors) for name, value in argument.items()})
    return argument
