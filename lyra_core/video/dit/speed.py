"""How fast the video network computes, and what is given up for it: profiles that a loader applies to the network.

    exact    compiled blocks; the same arithmetic, rounded in another order here and there
    fast     and 8-bit products in the wide linear layers of every block (lyra_core.video.dit.scaled_linear)
    fastest  and 8-bit attention among the tokens in all but the first and the last block
             (lyra_core.video.dit.narrow_attention)

The plain path is the network as built. Where a machine lacks something, the profile falls back to what it has and says
so: the result then is nearer to the plain one, never farther.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lyra_core.errors import LyraWarning
from lyra_core.video.dit.block import Block
from lyra_core.video.dit.narrow_attention import NarrowAttention, has_narrow_attention
from lyra_core.video.dit.network import DiT, step
from lyra_core.video.dit.scaled_linear import MULTIPLE, ScaledLinear, has_scaled_products
from lyra_core.video.dit.streaming import BlockStream


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedProfile:
    """What a profile asks for.

    Attributes:
        is_compiled: blocks compiled by torch.compile, with the kernels of lyra_core.video.dit.block_kernels.
        has_narrow_products: 8-bit linear layers.
        has_narrow_attention: 8-bit attention among the tokens.
        num_kept: blocks at either end whose attention stays as it is.
    """

    is_compiled: bool = True
    has_narrow_products: bool = False
    has_narrow_attention: bool = False
    num_kept: int = 1


NOT_COMPILED = ", not compiled"
ROOM_FOR_BIASES = 70 * 2**30
"""Bytes of a GPU on which narrow weights leave room for the position biases of all blocks (16 GB at full size)."""

PROFILES: dict[str, SpeedProfile] = {
    "exact": SpeedProfile(),
    "fast": SpeedProfile(has_narrow_products=True),
    "fastest": SpeedProfile(has_narrow_products=True, has_narrow_attention=True),
}


def apply_speed(dit: DiT, profile: SpeedProfile, *, is_emulated: bool = False) -> SpeedProfile:
    """Make a network compute as a profile says, in place; a bolder profile may follow a milder one.

    Args:
        dit: the network on its device, with its weights.
        profile: what is asked for.
        is_emulated: make 8-bit products by their plain form where the device cannot: slow, for comparisons.

    Returns:
        What was applied: the profile, less what this machine cannot do.
    """
    device = dit.patch_embedding.weight.device
    narrow = profile.has_narrow_products and (is_emulated or _can_multiply(device))
    attends = profile.has_narrow_attention and (is_emulated or _can_attend(device))
    compiled = profile.is_compiled and device.type == "cuda" and not is_emulated
    if compiled or (narrow and not is_emulated):
        importlib.import_module("lyra_core.video.dit.block_kernels")  # its operations become known to torch
    blocks = [block for block in dit.blocks if isinstance(block, Block)]
    for index, block in enumerate(blocks):
        home = block.modulation.device  # host memory, where blocks will be streamed from it
        block.to(device)
        if compiled:
            _use_kernels(block)
        if narrow:
            _narrow_products(block, is_emulated)
        if attends and profile.num_kept <= index < len(blocks) - profile.num_kept:
            own = block.self_attn
            own.narrow = NarrowAttention(own.norm_q.weight, own.norm_k.weight, is_emulated=is_emulated)
        block.to(home)
    if compiled:
        dit.step, dit.drops_history = CompiledStep(), True
    if narrow and _is_all_on(dit, device) and torch.cuda.get_device_properties(device).total_memory >= ROOM_FOR_BIASES:
        dit.store = "full"
    applied = SpeedProfile(
        is_compiled=compiled, has_narrow_products=narrow, has_narrow_attention=attends, num_kept=profile.num_kept
    )
    dit.speed = _name(applied)
    return applied


def real_speed(dit: DiT) -> str | None:
    """What a network computes as: a profile's name, less what this machine cannot do; None if none was asked for.

    "plain" is the network as built; "fast, not compiled" a profile whose blocks did not compile.
    """
    if dit.speed is None or not isinstance(dit.step, CompiledStep) or dit.step.is_compiled:
        return dit.speed
    return "plain" if dit.speed == "exact" else f"{dit.speed}{NOT_COMPILED}"


def _name(applied: SpeedProfile) -> str:
    kind = "fastest" if applied.has_narrow_attention else "fast" if applied.has_narrow_products else "exact"
    if applied.is_compiled:
        return kind
    return "plain" if kind == "exact" else f"{kind}{NOT_COMPILED}"


def narrow_layers(dit: DiT, *, is_emulated: bool = False) -> list[str]:
    """Make the layers of a network 8-bit that the profiles "fast" and "fastest" do, and name them.

    Weights are converted where they are, on "meta" too, for a network that is to be filled from a set of 8-bit weights.
    """
    for block in dit.blocks:
        if isinstance(block, Block):
            _narrow_products(block, is_emulated)
    return [name for name, layer in dit.named_modules() if isinstance(layer, ScaledLinear)]


def stream_blocks(dit: DiT) -> None:
    """Let the blocks of a network wait in host memory, and come to the device of the rest one after another."""
    stream = BlockStream(dit.patch_embedding.weight.device)
    for block in dit.blocks:
        if isinstance(block, Block):
            stream.take(block)
    dit.stream = stream


def _is_all_on(dit: DiT, device: torch.device) -> bool:
    return device.type == "cuda" and all(parameter.device == device for parameter in dit.parameters())


def _use_kernels(block: Block) -> None:
    """Take the kernels for what lies between the products."""
    block.self_attn.has_kernels = block.has_kernels = True


RECOMPILATIONS = 64
"""Forms of a block that may be compiled: a few for each frame size, number of captions and share of the tokens."""


class CompiledStep:
    """`dit.step`, compiled at its first call; if that fails it says so once and goes on with the plain one."""

    def __init__(self) -> None:
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, RECOMPILATIONS)
        self._step: Callable[..., Tensor] = torch.compile(step, fullgraph=True, dynamic=False)
        self.is_compiled = True

    def __call__(self, *arguments: object) -> Tensor:
        """Apply one block."""
        if not self.is_compiled:
            return self._step(*arguments)
        try:
            return self._step(*arguments)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            warnings.warn(
                f"the blocks of the video network could not be compiled and run as they are, a fifth slower: "
                f"{type(error).__name__}: {str(error).splitlines()[0]}",
                LyraWarning,
                stacklevel=2,
            )
            self._step, self.is_compiled = step, False
            return step(*arguments)  # type: ignore[arg-type]


def _can_multiply(device: torch.device) -> bool:
    if has_scaled_products(device):
        return True
    _warn("8-bit linear layers", "CUDA and compute capability 8.9 or newer", device)
    return False


def _can_attend(device: torch.device) -> bool:
    if has_narrow_attention(device):
        return True
    _warn("8-bit attention", "a Hopper GPU or newer and the package nvidia-cudnn-frontend", device)
    return False


def _warn(what: str, needs: str, device: torch.device) -> None:
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    warnings.warn(f"{what} need {needs}, found {device_name}: left as they are", LyraWarning, stacklevel=4)


def _narrow_products(block: Block, is_emulated: bool) -> None:
    """Replace the layers that see all tokens at every step and are wide enough to gain."""

    def narrow(layer: nn.Module, *, has_gelu: bool = False) -> nn.Module:
        if not isinstance(layer, nn.Linear) or layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
            return layer
        return ScaledLinear(layer, has_gelu=has_gelu, is_emulated=is_emulated)

    attentions: list[tuple[nn.Module, tuple[str, ...]]] = [(block.self_attn, ("q", "k", "v", "o"))]
    attentions += [(block.cross_attn, ("q", "o"))] if block.has_text else []
    for attention, names in attentions:
        for name in names:
            setattr(attention, name, narrow(getattr(attention, name)))
    outer = narrow(block.ffn[2], has_gelu=True)
    activation = nn.Identity() if isinstance(outer, ScaledLinear) else block.ffn[1]
    block.ffn = nn.Sequential(narrow(block.ffn[0]), activation, outer)
    # Channels of all layers follow from the width and the hidden width: all were narrowed or none.
    block.has_rows = block.has_kernels and isinstance(outer, ScaledLinear)
