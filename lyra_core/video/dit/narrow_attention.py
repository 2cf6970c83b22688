"""Full attention with 8-bit (fp8 e4m3) products on Hopper, through cuDNN's own graph interface.

What keeps the error small, each exact but for rounding:
* keys lose their mean over all tokens, which adds the same to every score of a query and so changes no weight
  (Zhang et al. 2024, "SageAttention", section 4.2);
* values lose their mean over all tokens, channel by channel, and are scaled to the format's range; the weights of a
  query add up to 1, so both come back after the product, and the 8-bit result holds only what differs from the mean;
* queries and keys come out of a norm, so a scale that follows from its weights fits every input: nothing is measured.

Needs the package nvidia-cudnn-frontend. Legend: b batch, l tokens.
"""

# ruff: noqa: ARG001

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.extras import is_installed, require
from lyra_core.video.dit.exchange import Spread, exchanged

LARGEST = 448.0
NARROW = torch.float8_e4m3fn
USUAL = 8.0
"""Where the root mean square of queries and keys is put: 56 times below the largest number, 500 above the smallest."""
WEIGHT_SCALE = 256.0
"""Of softmax weights before they are rounded to 8 bits: a power of two, for they are at most 1."""


class NarrowAttention(nn.Module):
    """Attention of one layer in 8 bits."""

    query_scale: Tensor
    key_scale: Tensor

    def __init__(self, query_weight: Tensor, key_weight: Tensor, *, is_emulated: bool = False) -> None:
        """Scales from the weights of the norms that queries and keys come from.

        Args:
            query_weight: of the norm of queries. [d]
            key_weight: of the norm of keys. [d]
            is_emulated: compute by the plain form, for devices that cannot.
        """
        super().__init__()
        self.is_emulated = is_emulated
        for name, weight in (("query_scale", query_weight), ("key_scale", key_weight)):
            usual = weight.detach().float().square().mean().sqrt().clamp(min=1e-6)
            self.register_buffer(name, (USUAL / usual).reshape(1, 1, 1, 1))

    def forward(
        self,
        query: Float[Tensor, "b asking heads dim"],
        key: Float[Tensor, "b l heads dim"],
        value: Tensor,
        spread: Spread | None = None,
        *,
        generated_only: bool = False,
    ) -> Float[Tensor, "b asking heads dim"]:
        """Softmax attention without a mask; the result has the dtype of the values. Arguments as of `attend`."""
        mixed, unit, mean = self.attend(query, key, value, spread, generated_only=generated_only)
        return (mixed.float() * unit + mean).to(value.dtype)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, spread: Spread | None = None, *, generated_only: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The result in 8 bits [b l heads dim], and what brings it back: times a unit plus a mean [b 1 heads dim].

        Args:
            query: [b asking heads dim]
            key: [b l heads dim]
            value: [b l heads dim]
            spread: where the tokens are, if these are only those of one process among several.
            generated_only: only generated tokens ask.
        """
        key_mean, mean, high, low = _measured(key, value, spread)
        narrow_query = _narrow(query.float() * self.query_scale)
        narrow_key = _narrow((key.float() - key_mean) * self.key_scale)
        # the farthest from the mean is the largest or the smallest: one pass over the values finds all three
        peak = torch.maximum(high - mean, mean - low)
        unit = peak.clamp(min=1e-12) / LARGEST
        narrow_value = _narrow((value.float() - mean) / unit)
        units = (1 / self.query_scale, 1 / self.key_scale)
        if spread is not None:
            asking, answering = spread.asking(generated_only=generated_only), spread.answering()
            mixed: Tensor = torch.ops.lyra.attend_narrow_across(
                narrow_query, narrow_key, narrow_value, *units, asking, answering, spread.share.group, self.is_emulated
            )
            return mixed, unit, mean
        product = _attend_reference if self.is_emulated else attend_narrow
        return product(narrow_query, narrow_key, narrow_value, *units), unit, mean


def _measured(key: Tensor, value: Tensor, spread: Spread | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means of keys and values, largest and smallest values, over the tokens of all processes. [b 1 heads dim]"""
    high, low = value.amax(1, keepdim=True).float(), value.amin(1, keepdim=True).float()
    if spread is None:
        key_mean, mean = (t.mean(1, keepdim=True, dtype=torch.float32) for t in (key, value))
        return key_mean, mean, high, low
    sums = [t.sum(1, keepdim=True, dtype=torch.float32) for t in (key, value)]
    found = spread.gather(torch.cat((*sums, high, low), dim=1))
    count = sum(spread.answering())
    key_mean, mean = (found[:, :, i : i + 1].sum(0) / count for i in range(2))
    return key_mean, mean, found[:, :, 2:3].amax(0), found[:, :, 3:4].amin(0)


def _narrow(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST, LARGEST).to(NARROW)


def _attend_reference(query: Tensor, key: Tensor, value: Tensor, query_unit: Tensor, key_unit: Tensor) -> Tensor:
    """The same numbers from plain float32 products; only the rounding of the softmax weights is left out."""
    wide = [t.float().transpose(1, 2) for t in (query, key, value)]
    mixed = nn.functional.scaled_dot_product_attention(wide[0] * query_unit, wide[1] * key_unit, wide[2])
    return _narrow(mixed.transpose(1, 2))


def has_narrow_attention(device: torch.device | str) -> bool:
    """Whether a device and the installed packages make 8-bit attention: Hopper or newer, and cuDNN's interface."""
    device = torch.device(device)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0) and is_installed("cudnn")


# The schema is written out because the tests' shape checker hides the annotations.
_SCHEMA = "(Tensor query, Tensor key, Tensor value, Tensor query_unit, Tensor key_unit) -> Tensor"


@torch.library.custom_op("lyra::attend_narrow", mutates_args=(), schema=_SCHEMA)
def attend_narrow(query: Tensor, key: Tensor, value: Tensor, query_unit: Tensor, key_unit: Tensor) -> Tensor:
    """Attention of 8-bit tensors [b l heads dim], in 8 bits; units [1 1 1 1] bring queries and keys back."""
    plan = _plan(tuple(query.shape), tuple(key.shape), query.device.index)
    mixed = torch.empty(query.shape, dtype=NARROW, device=query.device)
    plan.run(query.contiguous(), key.contiguous(), value.contiguous(), query_unit, key_unit, mixed)
    return mixed


@attend_narrow.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, query_unit: Tensor, key_unit: Tensor) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "lyra::attend_narrow_across",
    mutates_args=(),
    schema=(
        "(Tensor query, Tensor key, Tensor value, Tensor query_unit, Tensor key_unit, int[] asking, int[] answering, "
        "str group, bool is_emulated) -> Tensor"
    ),
)
def attend_narrow_across(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_unit: Tensor,
    key_unit: Tensor,
    asking: list[int],
    answering: list[int],
    group: str,
    is_emulated: bool,
) -> Tensor:
    """The same of tokens that are spread over processes; see lyra_core.video.dit.exchange.exchanged."""

    def product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (_attend_reference if is_emulated else attend_narrow)(q, k, v, query_unit, key_unit)

    return exchanged((query, key, value), product, asking, answering, group)


@attend_narrow_across.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_unit: Tensor,
    key_unit: Tensor,
    asking: list[int],
    answering: list[int],
    group: str,
    is_emulated: bool,
) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


class _Plan:
    """One compiled cuDNN graph for one shape on one device."""

    def __init__(self, query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: int) -> None:
        require("cudnn", "8-bit attention (video.speed=fastest)")
        import cudnn

        self._cudnn, self._device = cudnn, torch.device("cuda", device)
        kinds = cudnn.data_type
        with torch.cuda.device(self._device):
            self._handle = cudnn.create_handle()
        graph = cudnn.pygraph(
            io_data_type=kinds.FP8_E4M3,
            intermediate_data_type=kinds.FLOAT,
            compute_data_type=kinds.FLOAT,
            handle=self._handle,
        )

        def tensor(shape: tuple[int, ...], kind: Any) -> Any:
            b, length, heads, dim = shape
            stride = [length * heads * dim, dim, heads * dim, 1]
            return graph.tensor(dim=[b, heads, length, dim], stride=stride, data_type=kind)

        self._inputs = [tensor(shape, kinds.FP8_E4M3) for shape in (query_shape, key_shape, key_shape)]
        self._scalars = [tensor((1, 1, 1, 1), kinds.FLOAT) for _ in range(6)]
        names = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
        self._mixed, _, *self._peaks = graph.sdpa_fp8(
            q=self._inputs[0],
            k=self._inputs[1],
            v=self._inputs[2],
            **dict(zip(names, self._scalars, strict=True)),
            attn_scale=1.0 / math.sqrt(query_shape[-1]),
            generate_stats=False,
            use_causal_mask=False,
        )
        b, length, heads, dim = query_shape
        self._mixed.set_output(True).set_dim([b, heads, length, dim]).set_data_type(kinds.FP8_E4M3)
        self._mixed.set_stride([length * heads * dim, dim, heads * dim, 1])
        for peak in self._peaks:
            peak.set_output(True).set_dim([1, 1, 1, 1]).set_stride([1, 1, 1, 1]).set_data_type(kinds.FLOAT)
        graph.build([cudnn.heur_mode.A])
        self._graph = graph
        self._workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device=self._device)
        fixed = {"one": 1.0, "down": 1.0 / WEIGHT_SCALE, "up": WEIGHT_SCALE}
        self._fixed = {name: torch.full((1,), number, device=self._device) for name, number in fixed.items()}
        self._found = torch.empty(2, device=self._device)

    def run(self, query: Tensor, key: Tensor, value: Tensor, query_unit: Tensor, key_unit: Tensor, out: Tensor) -> None:
        """Write the attention of contiguous tensors to `out`, on the current stream."""
        self._cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream(self._device).cuda_stream)
        fixed = self._fixed
        scalars = (query_unit, key_unit, fixed["one"], fixed["down"], fixed["up"], fixed["one"])
        buffers = dict(zip(self._inputs, (query, key, value), strict=True))
        buffers |= dict(zip(self._scalars, scalars, strict=True))
        buffers |= {self._mixed: out} | dict(zip(self._peaks, self._found.split(1), strict=True))
        self._graph.execute(buffers, self._workspace, handle=self._handle)


@cache
def _plan(query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: int) -> _Plan:
    return _Plan(query_shape, key_shape, device)
