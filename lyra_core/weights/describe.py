"""Lists every tensor of a model under its released name, without allocating any: the modules are
built on "meta".

The lists are derived from the modules themselves, so that they are what loading and conversion
will ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_core.errors import WeightsError
from lyra_core.weights.keys import group_keys
from lyra_core.weights.registry import WEIGHT_SETS, weight_set

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor a model needs."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Everything a model loads.

    Attributes:
        name: the set of weights.
        tensors: in the module's order.
        parameters: elements in all.
    """

    name: str
    tensors: tuple[TensorSpec, ...]
    parameters: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


def describe(name: str) -> Description:
    """The tensors of the model that a set of weights fills.

    Raises:
        WeightsError: unknown name, or a set that fills no model of its own (LoRA, tokenizer).
    """
    module = build_on_meta(name)
    tensors = tuple(
        TensorSpec(name=key, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
        for key, tensor in module.state_dict().items()
    )
    return Description(name=name, tensors=tensors, parameters=sum(math.prod(tensor.shape) for tensor in tensors))


def summary(name: str) -> list[str]:
    """The tensors of a set in lines for people, repeated blocks as one, and the totals.

    Raises:
        WeightsError: as `describe`.
    """
    description = describe(name)
    shapes = {tensor.name: "x".join(map(str, tensor.shape)) for tensor in description.tensors}
    lines = group_keys(shapes, shapes)
    return [*lines, f"{len(shapes)} tensors, {description.parameters:,} parameters"]


def build_on_meta(name: str) -> nn.Module:
    """The module that a set of weights fills, on the meta device.

    Raises:
        WeightsError: unknown name, or a set that fills no model of its own.
    """
    weight_set(name)
    if name not in BUILDERS:
        raise WeightsError(f"{name} fills no model of its own; described are {', '.join(BUILDERS)}")
    import torch

    with torch.device("meta"):
        return BUILDERS[name]()


def is_described(name: str) -> bool:
    """Whether a set fills a model of its own."""
    return name in BUILDERS


def _dit() -> nn.Module:
    from lyra_core.video.dit.network import LYRA2_14B, DiT

    return DiT(LYRA2_14B)


def _vae() -> nn.Module:
    from lyra_core.video.vae.network import VAE, WAN21_VAE

    return VAE(WAN21_VAE)


def _text() -> nn.Module:
    from lyra_core.video.text import UMT5_XXL, TextEncoder

    return TextEncoder(UMT5_XXL)


def _image() -> nn.Module:
    from lyra_core.video.image import CLIP_VIT_H14, ImageEncoder

    return ImageEncoder(CLIP_VIT_H14)


def _depth_anything(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from lyra_core.gaussians.depth_anything.config import PRESETS, NestedConfig
        from lyra_core.gaussians.depth_anything.model import DepthAnything3, NestedDepthAnything3

        config = PRESETS[name]
        return NestedDepthAnything3(config) if isinstance(config, NestedConfig) else DepthAnything3(config)

    return build


_SAME_ARCHITECTURE = {"lyra2-recon": "da3nested-giant-large", "da3mono-large": "da3metric-large"}

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "lyra2-dit": _dit,
    "lyra2-vae": _vae,
    "wan-vae": _vae,
    "lyra2-text": _text,
    "wan-text": _text,
    "lyra2-image": _image,
    "wan-image": _image,
    **{
        name: _depth_anything(_SAME_ARCHITECTURE.get(name, name))
        for name, item in WEIGHT_SETS.items()
        if item.kind == "da3"
    },
}
