"""Reads LoRA files in the key styles they are published in, and merges them into the weights for
good.

LoRA (Hu et al., arXiv:2106.09685): W' = W + strength * alpha / rank * B A. Merging costs nothing
at run time, where
wrappers around every linear layer do. Several files are added in float32 and rounded once.

Key styles: `X.lora_A.weight` / `X.lora_B.weight` (PEFT), `X.lora_down.weight` / `X.lora_up.weight`
(kohya), with the
prefixes `diffusion_model.`, `net.`, `base_model.model.` or none; and `lora_unet_X` with
underscores for dots (musubi).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lyra_core.errors import StateDictError
from lyra_core.weights.keys import section

PREFIXES = ("base_model.model.", "diffusion_model.", "net.")
MUSUBI_PREFIX = "lora_unet_"
SUFFIXES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".diff_b": "bias",
    ".diff": "ignored",
}
# The reference implementation drops bias differences that are nearly constant in magnitude.
BIAS_SPREAD = 1.6e-2


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What a file holds for one layer."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None
    bias: Tensor | None = None
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLayer:
    """A low-rank change of one layer.

    Attributes:
        down: A. [rank, in] float32, or None where only the bias changes
        up: B. [out, rank] float32, or None
        scale: alpha / rank, 1 where the file has no alpha.
        bias: change of the bias. [out] float32, or None
    """

    down: Tensor | None
    up: Tensor | None
    scale: float
    bias: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The changes of one file.

    Attributes:
        name: for messages.
        layers: by the module's own layer name ("blocks.0.self_attn.q").
        ignored: keys without effect by convention (whole-weight differences, near-constant biases).
    """

    name: str
    layers: Mapping[str, LoraLayer]
    ignored: tuple[str, ...] = ()


def read_lora(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], name: str = "LoRA") -> Lora:
    """Interprets the keys of a LoRA file for a model.

    Args:
        tensors: the file's tensors, e.g. `open_weights(path, "lora")`.
        shapes: shapes of the model's parameters by name.
        name: the file, for messages.

    Raises:
        StateDictError: no key is a LoRA key; layers the model lacks; halves without their other
            half; wrong shapes.
    """
    layers = {key.removesuffix(".weight") for key in shapes if key.endswith(".weight")}
    parts, strangers, ignored = _collect(tensors, layers)
    homeless = [key for layer, part in parts.items() if layer not in layers for key in part.keys]
    incomplete = [
        key
        for layer, part in parts.items()
        if (part.down is None) != (part.up is None) or (part.down is None and part.bias is None)
        for key in part.keys
        if layer in layers
    ]
    problems = [
        section("that are no LoRA keys", strangers),
        section("of layers the model does not have", homeless),
        section("without their other half", incomplete),
    ]
    if strangers or homeless or incomplete or not parts:
        raise StateDictError(
            f"{name} does not fit this model: {len(parts)} layers in the file, "
            f"{sum(layer in layers for layer in parts)} of them in the model\n"
            + "\n".join(problem for problem in problems if problem)
        )
    found: dict[str, LoraLayer] = {}
    wrong: dict[str, str] = {}
    for layer, part in parts.items():
        if trouble := _shape_trouble(part, shapes, layer):
            wrong[layer] = trouble
        elif part.down is not None or part.bias is not None:
            found[layer] = _layer(part)
    if wrong:
        raise StateDictError(f"{name} does not fit this model:\n{section('of wrong shape', wrong, wrong)}")
    return Lora(name=name, layers=found, ignored=tuple(ignored))


def _collect(tensors: Mapping[str, Tensor], layers: set[str]) -> tuple[dict[str, _Parts], list[str], list[str]]:
    """The parts of each layer, keys of no known style, and keys without effect."""
    dotted = {layer.replace(".", "_"): layer for layer in layers}
    parts: dict[str, _Parts] = {}
    strangers: list[str] = []
    ignored: list[str] = []
    for key in tensors:
        suffix = next((suffix for suffix in SUFFIXES if key.endswith(suffix)), None)
        if suffix is None:
            strangers.append(key)
            continue
        role = SUFFIXES[suffix]
        layer = _layer_name(key.removesuffix(suffix), dotted)
        if role == "ignored" or (role == "bias" and not _spreads(tensors[key])):
            ignored.append(key)
            continue
        part = parts.setdefault(layer, _Parts())
        part.keys.append(key)
        if getattr(part, role) is not None:
            strangers.append(key)
        elif role == "alpha":
            part.alpha = float(tensors[key].float())
        else:
            setattr(part, role, tensors[key].float())
    return parts, strangers, ignored


def _layer_name(stem: str, dotted: Mapping[str, str]) -> str:
    if stem.startswith(MUSUBI_PREFIX):
        plain = stem.removeprefix(MUSUBI_PREFIX)
        return dotted.get(plain, plain)
    for prefix in PREFIXES:
        stem = stem.removeprefix(prefix)
    return stem


def _spreads(bias: Tensor) -> bool:
    magnitude = bias.float().abs()
    return bias.numel() > 0 and float(magnitude.max() - magnitude.min()) >= BIAS_SPREAD


def _shape_trouble(part: _Parts, shapes: Mapping[str, Sequence[int]], layer: str) -> str:
    """What is wrong with the shapes of a layer, or nothing. Kernels of convolutions count as
    flattened inputs."""
    outputs, *inputs = shapes[f"{layer}.weight"]
    if part.down is not None and part.up is not None:
        down, up = part.down.flatten(1), part.up.flatten(1)
        if down.shape[1] != math.prod(inputs) or up.shape[0] != outputs or up.shape[1] != down.shape[0]:
            found = f"A {list(part.down.shape)} and B {list(part.up.shape)}"
            return f"{found} for a weight {[outputs, *inputs]}"
    bias = shapes.get(f"{layer}.bias")
    if part.bias is not None and (bias is None or tuple(part.bias.shape) != tuple(bias)):
        return f"bias change {list(part.bias.shape)} for a bias {None if bias is None else list(bias)}"
    return ""


def _layer(part: _Parts) -> LoraLayer:
    down = None if part.down is None else part.down.flatten(1)
    up = None if part.up is None else part.up.flatten(1)
    scale = 1.0 if part.alpha is None or down is None else part.alpha / down.shape[0]
    return LoraLayer(down=down, up=up, scale=scale, bias=part.bias)


@torch.no_grad()
def merge_loras(module: nn.Module, loras: Iterable[tuple[Lora, float]]) -> int:
    """Adds LoRA files to the weights of a module, in float32, rounding once to each weight's dtype.

    Args:
        module: its parameters are replaced; files they were mapped from stay as they are.
        loras: the files with their strengths.

    Returns:
        the number of layers changed.

    Raises:
        StateDictError: a layer of a file is not in the module.
    """
    loras = list(loras)
    parameters = dict(module.named_parameters())
    for lora, _ in loras:
        absent = [layer for layer in lora.layers if f"{layer}.weight" not in parameters]
        if absent:
            missing = section("of layers the model does not have", absent)
            raise StateDictError(f"{lora.name} does not fit this model:\n{missing}")
    changed = list(dict.fromkeys(layer for lora, _ in loras for layer in lora.layers))
    for layer in changed:
        changes = [(lora.layers[layer], strength) for lora, strength in loras if layer in lora.layers]
        target = module.get_submodule(layer)
        weight, bias = parameters[f"{layer}.weight"], parameters.get(f"{layer}.bias")
        target.weight = _changed(weight, [(_product(c, weight), s) for c, s in changes])
        if bias is not None:
            target.bias = _changed(bias, [(c.bias, s) for c, s in changes])
    return len(changed)


def _product(change: LoraLayer, weight: Tensor) -> Tensor | None:
    if change.down is None or change.up is None:
        return None
    product = change.up.to(weight.device) @ change.down.to(weight.device)
    return change.scale * product.reshape(weight.shape)


def _changed(old: nn.Parameter, changes: Iterable[tuple[Tensor | None, float]]) -> nn.Parameter:
    total = old.detach().float()
    for change, strength in changes:
        if change is not None:
            total = total + strength * change.to(total.device)
    return nn.Parameter(total.to(old.dtype), old.requires_grad)
