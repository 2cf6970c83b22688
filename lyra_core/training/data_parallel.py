"""Several processes that train one model: each sees its own data, all take the same steps.

    torchrun --nproc-per-node 2 -m lyra_core.training vae ...

A process alone needs none of this; every function then does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """This process among those that train together.

    Attributes:
        rank: number of this process.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and measures."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A data seed of this process's own."""
        return seed * self.count + self.rank


ALONE = Replicas()


@contextmanager
def joined(device: str) -> Iterator[tuple[Replicas, str]]:
    """Join the processes torchrun started, if it did; gives this one's place and its device.

    Args:
        device: where to train; "cuda" becomes this process's own GPU.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE, device
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        place = Replicas(rank=dist.get_rank(), count=dist.get_world_size())
        if device == "cuda":
            device = f"cuda:{place.rank % torch.cuda.device_count()}"
            torch.cuda.set_device(device)
        yield place, device
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor], replicas: Replicas) -> None:
    """Give every process the mean gradient."""
    if replicas.count == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= replicas.count
    pieces = [piece.view_as(g) for piece, g in zip(flat.split([g.numel() for g in gradients]), gradients, strict=True)]
    torch._foreach_copy_(gradients, pieces)


def share_number(value: float, device: str | torch.device, replicas: Replicas) -> float:
    """The first process's number, in every process: clocks differ, and decisions must not."""
    if replicas.count == 1:
        return value
    number = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(number, 0)
    return float(number)


@torch.no_grad()
def share_tensors(tensors: Sequence[Tensor], replicas: Replicas) -> None:
    """The first process's values, in every process."""
    if replicas.count > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
