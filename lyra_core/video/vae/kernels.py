"""The autoencoder's work between its convolutions on a GPU, one pass over memory where plain tensors take six.

Tensors are channels last in memory: the channels of a pixel lie together. The plain forms are in
lyra_core.video.vae.layers. Needs Triton. Legend: b batch, c channels, t frames, h w rows and columns, r past frames.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lyra_core.video.dit.block_kernels import kernel

LAST = torch.channels_last_3d
NUMBERS = 4096
"""Of a program: enough work for one, few enough for its registers."""


@kernel
def _activate(
    x, bias, gamma, out, rows, rows_of_frame, frames, shift,
    HAS_BIAS: tl.constexpr, C: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDE)
    inside = (row < rows)[:, None] & (channel < C)[None, :]
    wide_row = row.to(tl.int64)[:, None]
    value = tl.load(x + wide_row * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    length = tl.maximum(tl.sqrt(tl.sum(value * value, axis=1)), 1e-12)
    scale = tl.load(gamma + channel, mask=channel < C, other=0.0).to(tl.float32)
    value = value / length[:, None] * (tl.sqrt(C * 1.0) * scale)[None, :]
    value = (value * tl.sigmoid(value)).to(out.dtype.element_ty)
    frame = row // rows_of_frame
    if TAPS == 1:
        moved = wide_row + ((frame // frames + 1) * (shift * rows_of_frame)).to(tl.int64)[:, None]
        tl.store(out + moved * C + channel[None, :], value, mask=inside)
    else:
        for tap in tl.static_range(TAPS):
            later = TAPS - 1 - tap
            there = inside & ((frame % frames) + later < frames)[:, None]
            at = (wide_row + later * rows_of_frame) * (TAPS * C) + tap * C
            tl.store(out + at + channel[None, :], value, mask=there)


@kernel
def _add(x, y, bias, other, out, numbers, HAS_OTHER: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside, channel = at < numbers, (at % C).to(tl.int32)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + channel).to(tl.float32)
    if HAS_OTHER:
        value += tl.load(other + channel).to(tl.float32)
    value += tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@kernel
def _double(x, out, rows, width, C: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDE)
    inside = (row < rows)[:, None] & (channel < C)[None, :]
    value = tl.load(x + row.to(tl.int64)[:, None] * C + channel[None, :], mask=inside, other=0.0)
    line, column = row // width, row % width
    first = line.to(tl.int64) * (4 * width) + 2 * column
    for corner in tl.static_range(4):
        at = first + (corner // 2) * (2 * width) + corner % 2
        tl.store(out + at[:, None] * C + channel[None, :], value, mask=inside)


def activate(
    x: Float[Tensor, "b c t h w"], bias: Float[Tensor, " c"] | None, gamma: Tensor, past: Tensor, reach: int
) -> Float[Tensor, "b c t2 h w"]:
    """SiLU of the normalised x (+ bias), after `reach` past frames: those given, zeros before them."""
    out = _empty(x, x.shape[1], reach + x.shape[2])
    missing = reach - past.shape[2]
    out[:, :, :missing].zero_()
    out[:, :, missing:reach].copy_(past)
    _run_activate(x, bias, gamma, out, reach, taps=1)
    return out


def activate_taps(
    x: Float[Tensor, "b c t h w"], bias: Float[Tensor, " c"] | None, gamma: Tensor, past: Tensor, reach: int
) -> Float[Tensor, "b taps_c t h w"]:
    """The same, with what a causal convolution reads at each frame side by side in channels, the oldest first."""
    c, t = x.shape[1:3]
    out = _empty(x, (reach + 1) * c, t)
    missing = reach - past.shape[2]
    for frame in range(min(reach, t)):
        for tap in range(reach - frame):
            at = frame + tap - missing
            to = out[:, tap * c : (tap + 1) * c, frame]
            to.zero_() if at < 0 else to.copy_(past[:, :, at])
    _run_activate(x, bias, gamma, out, reach, taps=reach + 1)
    return out


def _empty(x: Tensor, channels: int, frames: int) -> Tensor:
    shape = (x.shape[0], channels, frames, *x.shape[3:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=LAST)


def _run_activate(x: Tensor, bias: Tensor | None, gamma: Tensor, out: Tensor, reach: int, taps: int) -> None:
    x, (b, c, t, h, w) = x.contiguous(memory_format=LAST), x.shape
    wide = triton.next_power_of_2(c)
    rows, at_once = b * t * h * w, max(1, NUMBERS // wide)
    _activate[(triton.cdiv(rows, at_once),)](
        x, x if bias is None else bias, gamma, out, rows, h * w, t, reach,
        HAS_BIAS=bias is not None, C=c, WIDE=wide, ROWS=at_once, TAPS=taps,
    )  # fmt: skip


def add(x: Tensor, y: Tensor, bias: Tensor, other: Tensor | None) -> Tensor:
    """x + y + bias (+ other bias), biases by channel."""
    x, y = x.contiguous(memory_format=LAST), y.contiguous(memory_format=LAST)
    out = torch.empty_like(x)
    _add[(triton.cdiv(x.numel(), NUMBERS),)](
        x, y, bias, bias if other is None else other, out, x.numel(),
        HAS_OTHER=other is not None, C=x.shape[1], SIZE=NUMBERS,
    )  # fmt: skip
    return out


def double(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Every pixel as two by two."""
    x, (n, c, h, w) = x.contiguous(memory_format=torch.channels_last), x.shape
    out = torch.empty((n, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    wide = triton.next_power_of_2(c)
    rows, at_once = n * h * w, max(1, NUMBERS // wide)
    _double[(triton.cdiv(rows, at_once),)](x, out, rows, w, C=c, WIDE=wide, ROWS=at_once)
    return out
