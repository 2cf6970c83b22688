"""Low-rank changes that are trained in place of a network's own weights, in the form that weights/lora.py merges.

LoRA (Hu et al., arXiv:2106.09685, section 4.1): y = W x + alpha / rank * B A x, A drawn, B zero, W fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.errors import ConfigError

TARGETS = ("blocks.*.self_attn.?", "blocks.*.cross_attn.*", "blocks.*.ffn.?")
"""The linear layers of attention and feed-forward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Which layers get how wide a change.

    Attributes:
        rank: inner width.
        alpha: the change is scaled by alpha / rank; None for alpha = rank.
        targets: patterns of layer names.

    Raises:
        ConfigError: a rank below 1, or an alpha that is not positive.
    """

    rank: int = 32
    alpha: float | None = None
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.alpha is not None and self.alpha <= 0):
            raise ConfigError(f"a LoRA needs rank 1 or more and a positive alpha, found {self.rank} and {self.alpha}")


class LoraLinear(nn.Linear):
    """A linear layer and its change; names of its parameters are those of the plain layer, and two more."""

    def __init__(self, layer: nn.Linear, config: LoraConfig) -> None:
        """Takes the layer's parameters over; the change is on its device, in float32, still without values."""
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        device = layer.weight.device
        self.lora_A = nn.Linear(layer.in_features, config.rank, bias=False, device=device)
        self.lora_B = nn.Linear(config.rank, layer.out_features, bias=False, device=device)
        self.alpha = float(config.rank if config.alpha is None else config.alpha)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The layer with its change, computed in the dtype of x."""
        down = nn.functional.linear(x, self.lora_A.weight.to(x.dtype))
        change = nn.functional.linear(down, self.lora_B.weight.to(x.dtype))
        return super().forward(x) + change * (self.alpha / self.lora_A.out_features)


def add_lora(module: nn.Module, config: LoraConfig) -> int:
    """Put changes beside the chosen layers, in place; everything else is fixed. Returns the number of layers.

    Raises:
        ConfigError: no layer matches.
    """
    module.requires_grad_(requires_grad=False)
    chosen = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and any(fnmatchcase(name, pattern) for pattern in config.targets)
    ]
    if not chosen:
        raise ConfigError(f"no linear layer matches {', '.join(config.targets)}")
    for name in chosen:
        parent, _, child = name.rpartition(".")
        layer = module.get_submodule(name)
        setattr(module.get_submodule(parent), child, LoraLinear(layer, config))  # type: ignore[arg-type]
    return len(chosen)


def lora_layers(module: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The changed layers by name."""
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLinear):
            yield name, layer


@torch.no_grad()
def initialise_lora(module: nn.Module, generator: torch.Generator) -> None:
    """A uniform within 1 / sqrt(inputs), B zero: the network is as it was. `generator` is on the CPU."""
    for _, layer in lora_layers(module):
        bound = 1 / math.sqrt(layer.in_features)
        drawn = torch.empty(layer.lora_A.weight.shape).uniform_(-bound, bound, generator=generator)
        layer.lora_A.weight.copy_(drawn)
        nn.init.zeros_(layer.lora_B.weight)


def lora_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The changes by the names in which LoRA files are published, on the CPU."""
    tensors: dict[str, Tensor] = {}
    for name, layer in lora_layers(module):
        tensors[f"{name}.lora_A.weight"] = layer.lora_A.weight.detach().cpu().contiguous()
        tensors[f"{name}.lora_B.weight"] = layer.lora_B.weight.detach().cpu().contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
    return tensors


def save_lora(module: nn.Module, path: Path) -> None:
    """Write the changes as safetensors."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    save_file(lora_tensors(module), str(partial))
    partial.replace(path)
