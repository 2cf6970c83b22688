"""Places of a block where a GPU waited for memory, each one Triton kernel that reads and writes once.

    turn        norm over all channels and rotary position
    norm_rows   residual, layer norm, modulation, and the rows in 8 bits
    narrow      rows in 8 bits, of attention's result
    gelu_rows   GELU, and the rows in 8 bits

Each has its plain form in the files beside it: attention, block, scaled_linear. Times: docs/log.md. Needs Triton.

Legend: b batch, l tokens, d channels.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ARG001

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NARROW = torch.float8_e4m3fn


def kernel(function: Callable[..., Any]) -> Any:
    """`triton.jit` without what a shape-checking import hook put around the function.

    Pointers and sizes are specialised: what is known to be aligned is loaded 16 bytes at a time.
    """
    return triton.jit(inspect.unwrap(function))


ROW_WARPS = 8
GELU_WARPS = 8
"""Warps that share a row: measured at 5,120 and 13,824 channels."""


@kernel
def _turn(
    x, weight, cos, sin, out, length, eps,
    HEADS: tl.constexpr, WIDE: tl.constexpr, PAIRS: tl.constexpr, PAIRS_WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, channel = tl.arange(0, WIDE), tl.arange(0, 2 * PAIRS_WIDE)
    at = head[:, None] * (2 * PAIRS) + channel[None, :]
    inside = (head < HEADS)[:, None] & (channel < 2 * PAIRS)[None, :]
    value = tl.load(x + row * (HEADS * 2 * PAIRS) + at, mask=inside, other=0.0).to(tl.float32)
    square = tl.sum(tl.sum(value * value, axis=1), axis=0) / (HEADS * 2 * PAIRS)
    narrow = out.dtype.element_ty  # rounded where the plain form rounds
    value = (value * tl.rsqrt(square + eps)).to(narrow).to(tl.float32)
    value = (value * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)).to(narrow).to(tl.float32)
    even, odd = tl.split(tl.reshape(value, (WIDE, PAIRS_WIDE, 2)))
    pair = tl.arange(0, PAIRS_WIDE)
    angle = (row % length) * PAIRS + pair
    c = tl.load(cos + angle, mask=pair < PAIRS, other=0.0)[None, :]
    s = tl.load(sin + angle, mask=pair < PAIRS, other=0.0)[None, :]
    turned = tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (WIDE, 2 * PAIRS_WIDE))
    tl.store(out + row * (HEADS * 2 * PAIRS) + at, turned.to(narrow), mask=inside)


@kernel
def _rows(
    x, residual, gate, weight, offset, shift, scale, steer, kept, values, scales, steered, steered_scales,
    length, width, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_GATE: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SHIFT: tl.constexpr,
    HAS_STEER: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    item = (row // length) * width
    at = tl.arange(0, WIDE)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    narrow = x.dtype.element_ty  # rounded where the plain form rounds
    if HAS_RESIDUAL:
        more = tl.load(residual + row * width + at, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            more = more * tl.load(gate + item + at, mask=inside, other=0.0).to(narrow).to(tl.float32)
        value = (value + more).to(narrow)
        tl.store(kept + row * width + at, value, mask=inside)
        value = value.to(tl.float32)
    mean = tl.sum(value, axis=0) / width
    value = tl.where(inside, value - mean, 0.0)
    value = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
    if HAS_WEIGHT:
        value = value * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(offset + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_SHIFT:
        value = value * (1.0 + tl.load(scale + item + at, mask=inside, other=0.0))
        value += tl.load(shift + item + at, mask=inside, other=0.0)
    value = value.to(narrow).to(tl.float32)
    _store_row(value, values + row * width, scales + row, at, inside)
    if HAS_STEER:
        value = value + tl.load(steer + row * width + at, mask=inside, other=0.0).to(tl.float32)
        _store_row(value.to(narrow).to(tl.float32), steered + row * width, steered_scales + row, at, inside)


@kernel
def _store_row(value, values, scale_to, at, inside):
    """A row in 8 bits; what is not inside is 0."""
    peak = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12)
    # one division a row; what rounding lifts above the largest number is cut by the conversion
    tl.store(values + at, (value * (448.0 / peak)).to(values.dtype.element_ty), mask=inside)
    tl.store(scale_to, peak / 448.0)


@kernel
def _narrow(x, unit, mean, values, scales, length, width, HAS_UNIT: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_UNIT:
        item = (row // length) * width
        value = value * tl.load(unit + item + at, mask=inside, other=0.0)
        value += tl.load(mean + item + at, mask=inside, other=0.0)
    _store_row(value, values + row * width, scales + row, at, inside)


@kernel
def _gelu_rows(x, values, scales, width, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    # x (1 + tanh u) / 2 = x sigmoid(2 u)
    inner = 1.5957691216057308 * (value + 0.044715 * value * value * value)
    value = (value * tl.sigmoid(inner)).to(x.dtype.element_ty).to(tl.float32)
    _store_row(value, values + row * width, scales + row, at, inside)


# The schemas are written out because the tests' shape checker hides the annotations.
@torch.library.custom_op(
    "lyra::turn",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor cos, Tensor sin, int heads, float eps) -> Tensor",
)
def turn(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float) -> Tensor:
    """Norm over all channels, then rotation of adjacent pairs: [b l d] to [b l heads dim]."""
    b, length, width = x.shape
    x = x.contiguous()
    out = torch.empty(b, length, heads, width // heads, dtype=x.dtype, device=x.device)
    pairs = width // heads // 2
    _turn[(b * length,)](
        x, weight, cos.contiguous(), sin.contiguous(), out, length, eps,
        HEADS=heads, WIDE=triton.next_power_of_2(heads), PAIRS=pairs, PAIRS_WIDE=triton.next_power_of_2(pairs),
    )  # fmt: skip
    return out


@turn.register_fake
def _(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], heads, x.shape[2] // heads)


def _rows_like(x: Tensor) -> tuple[Tensor, Tensor]:
    """Room for rows in 8 bits and their scales."""
    return torch.empty(x.shape, dtype=NARROW, device=x.device), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)


def _no_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(0, dtype=NARROW), x.new_empty(0, dtype=torch.float32)


@torch.library.custom_op(
    "lyra::norm_rows",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor? residual, Tensor? gate, Tensor? weight, Tensor? offset, Tensor? shift, Tensor? scale, "
        "Tensor? steer, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
def norm_rows(
    x: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    weight: Tensor | None,
    offset: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    steer: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Layer norm of x [b l d] (+ residual * gate), times a weight or modulated, its rows in 8 bits.

    Args:
        x: tokens.
        residual: added first, times gate [b 1 d] where there is one.
        gate: float32.
        weight: of the norm, with its offset. [d]
        offset: of the norm. [d]
        shift: added after the norm, float32. [b 1 d]
        scale: the norm is multiplied by 1 + scale, float32. [b 1 d]
        steer: added to the result for a second one. [b l d]
        eps: of the norm.

    Returns:
        The tokens with their residual, rows and scales, rows and scales of the steered; empty where not asked for.
    """
    x = x.contiguous()
    length, width = x.shape[1:]
    residual, gate, shift, scale, steer = (
        None if t is None else t.contiguous() for t in (residual, gate, shift, scale, steer)
    )
    kept = x.new_empty(0) if residual is None else torch.empty_like(x)
    values, scales = _rows_like(x)
    steered, steered_scales = _no_rows(x) if steer is None else _rows_like(x)

    def given(tensor: Tensor | None) -> Tensor:
        return x if tensor is None else tensor

    _rows[(x.shape[0] * length,)](
        x, given(residual), given(gate), given(weight), given(offset), given(shift), given(scale), given(steer),
        kept, values, scales, steered, steered_scales, length, width, eps,
        HAS_RESIDUAL=residual is not None, HAS_GATE=gate is not None, HAS_WEIGHT=weight is not None,
        HAS_SHIFT=shift is not None, HAS_STEER=steer is not None, WIDE=triton.next_power_of_2(width),
        num_warps=ROW_WARPS,
    )  # fmt: skip
    return kept, values, scales, steered, steered_scales


@norm_rows.register_fake
def _(
    x: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    weight: Tensor | None,
    offset: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    steer: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kept = x.new_empty(0) if residual is None else x.new_empty(x.shape)
    return kept, *_rows_like(x), *(_no_rows(x) if steer is None else _rows_like(x))


@torch.library.custom_op(
    "lyra::narrow", mutates_args=(), schema="(Tensor x, Tensor? unit, Tensor? mean) -> (Tensor, Tensor)"
)
def narrow(x: Tensor, unit: Tensor | None, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of [b l d] (times unit plus mean, [b 1 d] float32) in 8 bits, and their scales [b l 1]."""
    x = x.contiguous()
    length, width = x.shape[1:]
    values, scales = _rows_like(x)
    _narrow[(x.shape[0] * length,)](
        x, x if unit is None else unit.contiguous(), x if mean is None else mean.contiguous(), values, scales,
        length, width, HAS_UNIT=unit is not None, WIDE=triton.next_power_of_2(width),
        num_warps=ROW_WARPS,
    )  # fmt: skip
    return values, scales


@narrow.register_fake
def _(x: Tensor, unit: Tensor | None, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    return _rows_like(x)


@torch.library.custom_op("lyra::gelu_rows", mutates_args=(), schema="(Tensor x) -> (Tensor, Tensor)")
def gelu_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """GELU (tanh form) of [b l k] in 8 bits, and the scales of its rows [b l 1]."""
    x = x.contiguous()
    width = x.shape[-1]
    values, scales = _rows_like(x)
    _gelu_rows[(x.numel() // width,)](
        x, values, scales, width, WIDE=triton.next_power_of_2(width), num_warps=GELU_WARPS
    )
    return values, scales


@gelu_rows.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _rows_like(x)


@torch.library.custom_op(
    "lyra::linear_gelu", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (tanh form) of a linear layer of [b l k], made where the product is made."""
    product = torch._addmm_activation(bias, x.flatten(0, 1), weight.T, use_gelu=True)
    return product.unflatten(0, x.shape[:2])


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])
