"""A network spread over processes: each keeps a part of every parameter, and the whole of one block at a time (FSDP2).

    plan = ShardConfig(compute="bfloat16")
    shard(networks, plan, device)             # torchrun started several processes, or one on a GPU
    fill(networks.dit, open_weights(home))    # each process reads its part only
    ...
    for name, whole in gathered(networks.dit): ...

ZeRO (Rajbhandari et al., arXiv:1910.02054), stage 3; PyTorch FSDP (Zhao et al., arXiv:2304.11277).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lyra_core.finetuning.lora import lora_layers
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.training.data_parallel import Replicas, joined
from lyra_core.weights.keys import require_match

Compute = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """How a network is spread.

    Attributes:
        compute: dtype in which parameters are gathered and blocks compute; gradients are summed in float32 anyhow.
    """

    compute: Compute = "bfloat16"


@contextmanager
def together(device: str) -> Iterator[tuple[Replicas, str]]:
    """Join the processes torchrun started; a process alone on a GPU forms a group of its own.

    So that mixed precision is the same code with one GPU as with many. A CPU alone needs no group.
    """
    with joined(device) as (replicas, own):
        if dist.is_initialized() or not own.startswith("cuda"):
            yield replicas, own
            return
        torch.cuda.set_device(own if ":" in own else "cuda:0")
        dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
        try:
            yield replicas, own
        finally:
            dist.destroy_process_group()


def shard(networks: ReleasedNetworks, config: ShardConfig, device: str | torch.device) -> None:
    """Spread the transformer over the joined processes, in place: each block a unit, the rest another.

    Changes of LoRA layers stay whole in every process; average their gradients (data_parallel.average_gradients).

    Args:
        networks: may be on the meta device.
        config: how.
        device: this process's.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=getattr(torch, config.compute),
        reduce_dtype=torch.float32,
        # times and noise levels are float32 on purpose: bfloat16 would tell neighbouring levels as one
        cast_forward_inputs=False,
    )
    whole = {p for _, layer in lora_layers(networks) for p in (*layer.lora_A.parameters(), *layer.lora_B.parameters())}
    for block in networks.dit.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=whole)
        register_fsdp_forward_method(block, "from_tokens")
    fully_shard(networks, mesh=mesh, mp_policy=policy, ignored_params=whole)


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor], origin: str = "weights") -> None:
    """Copy tensors into the parameters of the same names, of which each process may keep a part.

    Args:
        module: materialised; parameters of LoRA layers' changes are left alone.
        tensors: by name; read one at a time (Weights reads a file's bytes only where they are used).
        origin: names the tensors in messages.

    Raises:
        StateDictError: missing, unexpected or wrong-shape keys.
    """
    own = {name: p for name, p in module.named_parameters() if ".lora_" not in name}
    shapes = getattr(tensors, "shapes", None) or {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    require_match(shapes, {name: tuple(parameter.shape) for name, parameter in own.items()}, origin)
    for name, parameter in own.items():
        if isinstance(parameter, DTensor):
            local = parameter.to_local()
            local.copy_(part_of(tensors[name], dist.get_world_size(), dist.get_rank()))
        else:
            parameter.copy_(tensors[name])


def part_of(tensor: Tensor, count: int, rank: int) -> Tensor:
    """What one of `count` processes keeps of a tensor: rows in chunks as torch.chunk cuts them, none for the last
    processes where there are too few."""
    parts = tensor.chunk(count, dim=0)
    return parts[rank] if rank < len(parts) else tensor[:0]


@torch.no_grad()
def gathered(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter whole, one after the other; all processes must go through all of them."""
    for name, parameter in module.named_parameters():
        yield name, whole_tensor(parameter.detach())


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that may be spread, whole; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
