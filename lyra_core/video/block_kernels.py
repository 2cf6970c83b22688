"""Three places of a block where a GPU waited for memory or for small products, as one Triton kernel each.

    turn          norm over all channels and rotary position                     (1.8 ms as compiled tensors, 0.3 here)
    attend_both   attention to text and to image tokens, and the sum of the two  (5.6 ms by cuDNN, whose tiles are long)
    gelu_rows     GELU and the rows in 8 bits                                    (1.9 ms as compiled tensors)

Milliseconds of one layer at full size on an H100. Each has its plain form beside it: lyra_core.video.attention,
lyra_core.video.scaled_linear. Needs Triton.

Legend: b batch, l tokens, s text or image tokens, d channels.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ARG001

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 448.0
SMALLEST_PEAK = 1e-12
NARROW = torch.float8_e4m3fn


def kernel(function: Callable[..., Any]) -> Any:
    """`triton.jit` without what a shape-checking import hook put around the function.

    Pointers and sizes are specialised: what is known to be aligned is loaded 16 bytes at a time.
    """
    return triton.jit(inspect.unwrap(function))


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
def _attend_one(
    query, key, value, count, token_stride, scale,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Attention of the rows of one program to one set of tokens; scale includes log2(e)."""
    channel, column = tl.arange(0, D), tl.arange(0, COLUMNS)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, D), tl.float32)
    for start in range(0, count, COLUMNS):
        token = start + column
        there = token < count
        k = tl.load(key + token[None, :] * token_stride + channel[:, None], mask=there[None, :], other=0.0)
        score = tl.where(there[None, :], tl.dot(query, k) * scale, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, axis=1))
        share = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(share, axis=1)
        v = tl.load(value + token[:, None] * token_stride + channel[None, :], mask=there[:, None], other=0.0)
        mixed = tl.dot(share.to(v.dtype), v, mixed * shrink[:, None])
        peak = higher
    return mixed / total[:, None]


@kernel
def _attend_both(
    query, text_key, text_value, image_key, image_value, out, length, heads, texts, images,
    text_batch, text_head, text_token, image_batch, image_head, image_token, scale,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    item, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, D)
    at = ((item.to(tl.int64) * length + row) * heads + head)[:, None] * D + channel[None, :]
    q = tl.load(query + at, mask=(row < length)[:, None], other=0.0)
    offset = item * text_batch + head * text_head
    mixed = _attend_one(q, text_key + offset, text_value + offset, texts, text_token, scale, D, ROWS, COLUMNS)
    if images > 0:
        offset = item * image_batch + head * image_head
        mixed += _attend_one(q, image_key + offset, image_value + offset, images, image_token, scale, D, ROWS, COLUMNS)
    tl.store(out + at, mixed.to(out.dtype.element_ty), mask=(row < length)[:, None])


@kernel
def _gelu_rows(x, values, scales, width, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    # x (1 + tanh u) / 2 = x sigmoid(2 u)
    inner = 1.5957691216057308 * (value + 0.044715 * value * value * value)
    value = (value * tl.sigmoid(inner)).to(x.dtype.element_ty).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12) / 448.0
    narrow = tl.minimum(tl.maximum(value / scale, -448.0), 448.0)
    tl.store(values + row * width + at, narrow.to(values.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


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


@torch.library.custom_op(
    "lyra::attend_both",
    mutates_args=(),
    schema="(Tensor query, Tensor text_key, Tensor text_value, Tensor? image_key, Tensor? image_value) -> Tensor",
)
def attend_both(
    query: Tensor, text_key: Tensor, text_value: Tensor, image_key: Tensor | None, image_value: Tensor | None
) -> Tensor:
    """Sum of the attentions of queries [b l heads dim] to two sets of tokens [b heads s dim]."""
    query = query.contiguous()
    b, length, heads, dim = query.shape
    out = torch.empty_like(query)
    second_key, second_value = (text_key, text_value) if image_key is None else (image_key, image_value)
    sets = [_alike(k, v) for k, v in ((text_key, text_value), (second_key, second_value))]
    (first_key, first_value), (other_key, other_value) = sets
    rows, columns, warps = TILES
    _attend_both[(triton.cdiv(length, rows), b * heads)](
        query, first_key, first_value, other_key, other_value, out, length, heads,
        first_key.shape[2], 0 if image_key is None else other_key.shape[2],
        *first_key.stride()[:3], *other_key.stride()[:3], math.log2(math.e) / math.sqrt(dim),
        D=dim, ROWS=rows, COLUMNS=columns, num_warps=warps, num_stages=STAGES,
    )  # fmt: skip
    return out


TILES = (128, 64, 8)
"""Queries and tokens of a tile, and warps that share it."""
STAGES = 3


def _alike(key: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys and values with equal strides, channels together."""
    if value is None:
        raise ValueError("keys need their values, found none")
    if key.stride() == value.stride() and key.stride(-1) == 1:
        return key, value
    return key.contiguous(), value.contiguous()


@attend_both.register_fake
def _(
    query: Tensor, text_key: Tensor, text_value: Tensor, image_key: Tensor | None, image_value: Tensor | None
) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@torch.library.custom_op("lyra::gelu_rows", mutates_args=(), schema="(Tensor x) -> (Tensor, Tensor)")
def gelu_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """GELU (tanh form) of [m k] in 8 bits, and the scales of its rows [m 1]."""
    x = x.contiguous()
    rows, width = x.shape
    values, scales = torch.empty_like(x, dtype=NARROW), torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    _gelu_rows[(rows,)](x, values, scales, width, WIDE=triton.next_power_of_2(width), num_warps=16)
    return values, scales


@gelu_rows.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x, dtype=NARROW, memory_format=torch.contiguous_format),
        x.new_empty(x.shape[0], 1, dtype=torch.float32),
    )
