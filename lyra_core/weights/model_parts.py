"""Lists the parts of a whole model, each with the set of weights that fills it and its size; nothing is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_core.errors import WeightsError
from lyra_core.weights.bundle import PARTS
from lyra_core.weights.describe import describe, is_described
from lyra_core.weights.registry import WEIGHT_SETS

if TYPE_CHECKING:
    from torch import Tensor, nn

DESCRIBED_MODELS = (*PARTS, "mini")
_LORA_MODEL = "lyra2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """One part of a model.

    Attributes:
        role: what the model uses it for.
        set: the set of weights that fills it.
        alternatives: sets that can stand in for it.
        license: of the set.
        tensors: how many; None for what is no network (a tokenizer) and for LoRA, whose ranks only their files tell.
        parameters: elements of them in all.
        is_optional: a recipe may do without it.
    """

    role: str
    set: str
    alternatives: tuple[str, ...] = ()
    license: str
    tensors: int | None = None
    parameters: int | None = None
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """A model and its parts.

    Attributes:
        name: as in lyra_core.models.MODELS.
        parts: in the order in which they are loaded, then the optional ones.
        tensors: of all parts that are networks.
        parameters: of all parts that are networks.
    """

    name: str
    parts: tuple[ModelPart, ...]
    tensors: int
    parameters: int


def describe_model(name: str) -> ModelDescription:
    """The parts of a model with weights, and their sizes.

    Raises:
        WeightsError: no such model, or none with weights.
    """
    if name not in DESCRIBED_MODELS:
        raise WeightsError(
            f"{name} is no model with weights; those are {', '.join(DESCRIBED_MODELS)}. "
            f"Sets of weights are listed by: lyra weights describe"
        )
    parts = tuple(_mini_parts() if name == "mini" else _bundle_parts(name))
    return ModelDescription(
        name=name,
        parts=parts,
        tensors=sum(part.tensors or 0 for part in parts),
        parameters=sum(part.parameters or 0 for part in parts),
    )


def model_summary(name: str) -> list[str]:
    """The parts in lines for people, and the totals.

    Raises:
        WeightsError: as `describe_model`.
    """
    summary = describe_model(name)
    lines = [f"{'part':16} {'weights':24} {'tensors':>8} {'parameters':>16}  license"]
    for part in summary.parts:
        counts = ["-" if count is None else f"{count:,}" for count in (part.tensors, part.parameters)]
        names = " or ".join((part.set, *part.alternatives))
        note = ", optional" if part.is_optional else ""
        lines.append(f"{part.role:16} {names:24} {counts[0]:>8} {counts[1]:>16}  {part.license}{note}")
    return [*lines, f"{summary.tensors:,} tensors, {summary.parameters:,} parameters"]


def _bundle_parts(name: str) -> Iterator[ModelPart]:
    for part in PARTS[name]:
        first, *others = part.sets
        known = describe(first) if is_described(first) else None
        yield ModelPart(
            role=part.role,
            set=first,
            alternatives=tuple(others),
            license=WEIGHT_SETS[first].license,
            tensors=None if known is None else len(known.tensors),
            parameters=None if known is None else known.parameters,
        )
    if name == _LORA_MODEL:
        for item in WEIGHT_SETS.values():
            if item.kind == "lora":
                yield ModelPart(role="lora", set=item.name, license=item.license, is_optional=True)


def _mini_parts() -> Iterator[ModelPart]:
    """The networks of the embedded model, in the widths its manifest tells."""
    for role, module in _mini_modules().items():
        state: Mapping[str, Tensor] = module.state_dict()
        yield ModelPart(
            role=role,
            set="mini",
            license=WEIGHT_SETS["mini"].license,
            tensors=len(state),
            parameters=sum(math.prod(tensor.shape) for tensor in state.values()),
        )


def _mini_modules() -> dict[str, nn.Module]:
    import torch

    from lyra_core.mini.depth import MiniDepth, MiniDepthConfig
    from lyra_core.mini.manifest import SUPER_RESOLUTION, read_components
    from lyra_core.mini.networks import MiniNetworks
    from lyra_core.mini.super_resolution import SuperResolution, SuperResolutionConfig
    from lyra_core.mini.vae import MiniVAEConfig, build_mini_vae
    from lyra_core.video.dit.config import DiTConfig

    widths = {name: component.widths for name, component in read_components().items()}
    with torch.device("meta"):
        video = MiniNetworks(DiTConfig(**widths["video"]))  # type: ignore[arg-type]
        depth = MiniDepth(MiniDepthConfig(**widths["depth"]))  # type: ignore[arg-type]
        vae = build_mini_vae(MiniVAEConfig(**widths["vae"]))  # type: ignore[arg-type]
        enlarging = SuperResolution(SuperResolutionConfig(**widths[SUPER_RESOLUTION]))  # type: ignore[arg-type]
    return {
        "dit": video.dit,
        "vae": vae,
        "text": video.text,
        "image": video.image,
        "depth": depth,
        "super-resolution": enlarging,
    }
