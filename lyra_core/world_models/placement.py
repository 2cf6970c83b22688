"""Where the weights of a large model wait: on the GPU, or in host memory until they are used.

    resident   all on the GPU
    visiting   text encoder, image tower and depth network come when they are used
    streamed   and so do the blocks of the video network, one after another beside the computation

The arithmetic is the same, so no id depends on it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast, get_args

import torch
from torch import nn

from lyra_core.errors import RecipeError
from lyra_core.hosted_weights import HostedWeights
from lyra_core.video.dit.scaled_linear import has_scaled_products

Placement = Literal["resident", "visiting", "streamed"]

GIB = 2**30
ROOM_FOR_ALL = 100 * GIB
"""Bytes of a GPU on which nothing needs to wait, whatever the speed."""
ROOM_FOR_HALF = 56 * GIB
"""On which the video network fits in bfloat16 beside its activations."""
ROOM_FOR_NARROW = 40 * GIB
"""On which it fits with 8-bit linear layers."""


def choose_placement(word: str, device: torch.device | str, speed: str) -> Placement:
    """Where weights go.

    Args:
        word: one of Placement, or "auto" for what the GPU's memory allows.
        device: where the model computes; elsewhere than on CUDA all weights stay.
        speed: profile of the video network; its 8-bit layers need less.

    Raises:
        RecipeError: another word.
    """
    known = get_args(Placement)
    if word not in (*known, "auto"):
        raise RecipeError(f"video.placement should be one of auto, {', '.join(known)}, found {word!r}")
    device = torch.device(device)
    if device.type != "cuda":
        return "resident"
    if word != "auto":
        return cast("Placement", word)
    is_narrow = speed != "exact" and has_scaled_products(device)
    return fitting(torch.cuda.get_device_properties(device).total_memory, is_narrow=is_narrow)


def fitting(memory_bytes: int, *, is_narrow: bool) -> Placement:
    """What a GPU of so many bytes has room for."""
    if memory_bytes >= ROOM_FOR_ALL:
        return "resident"
    return "visiting" if memory_bytes >= (ROOM_FOR_NARROW if is_narrow else ROOM_FOR_HALF) else "streamed"


def home_of(module: nn.Module, placement: Placement, device: torch.device | str) -> AbstractContextManager[None]:
    """What brings the weights of a network to its device while it is used."""
    return nullcontext() if placement == "resident" else HostedWeights(module, device)
