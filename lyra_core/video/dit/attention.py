"""The two attentions of a video block: among all tokens, and from tokens to text and image.

Keys and values of text and image do not change from step to step, so they are projected once
(`project_text`, `project_image`) and passed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lyra_core.video.dit.narrow_attention import NarrowAttention
from lyra_core.video.dit.rope import Rotation, rotate
from lyra_core.video.dit.scaled_linear import Rows


class RMSNorm(nn.Module):
    """Root-mean-square norm over all channels, before heads are split (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Normalise; in fp32, because thousands of bf16 squares do not add up."""
        wide = x.float()
        mean_square = wide.square().mean(-1, keepdim=True)
        return (wide * torch.rsqrt(mean_square + self.eps)).to(x.dtype) * self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """Projected keys and values, heads split.

    Attributes:
        key: [b heads s dim]
        value: [b heads s dim]
    """

    key: Float[Tensor, "b heads s dim"]
    value: Float[Tensor, "b heads s dim"]


@contextmanager
def cudnn_first() -> Iterator[None]:
    """Prefer cuDNN's attention kernels inside (fastest on Hopper), falling back to the others."""
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(order, set_priority=True):
        yield


def split_heads(x: Float[Tensor, "b l d"], num_heads: int) -> Float[Tensor, "b l heads dim"]:
    """Channels to heads."""
    return x.unflatten(-1, (num_heads, -1))


def attend(query: Float[Tensor, "b heads l dim"], memory: KeyValue) -> Float[Tensor, "b l d"]:
    """Softmax attention without a mask (Vaswani et al. 2017, equation 1), heads merged."""
    mixed = nn.functional.scaled_dot_product_attention(query, memory.key, memory.value)
    return mixed.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Full attention among all tokens.

    Camera and correspondence steer where to look (q, k), not what is read there (v).
    """

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        self.narrow: NarrowAttention | None = None  # set where the products are to be made in 8 bits
        self.has_kernels = False  # whether lyra_core.video.dit.block_kernels does what lies between the products

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        bias: Float[Tensor, "b l d"],
        rotation: Rotation,
        num_asking: int | None = None,
    ) -> Float[Tensor, "b asking d"]:
        """Attend.

        Args:
            x: normalised, modulated tokens. [b l d]
            bias: what camera and correspondence add to the inputs of q and k. [b l d]
            rotation: rotary positions.
            num_asking: how many of the last tokens ask; None for all. All answer.
        """
        return self.attend(x, x + bias, rotation, num_asking)

    def attend(
        self, x: Tensor | Rows, steered: Tensor | Rows, rotation: Rotation, num_asking: int | None = None
    ) -> Float[Tensor, "b asking d"]:
        """Attend with the bias added already: values from x, queries and keys from steered. [b l d]"""
        key = self._turn(self.k(steered), self.norm_k, rotation)
        if num_asking is not None:
            steered = steered.last(num_asking) if isinstance(steered, Rows) else steered[:, -num_asking:]
            rotation = rotation.last(num_asking)
        query = self._turn(self.q(steered), self.norm_q, rotation)
        value = split_heads(self.v(x), self.num_heads)
        spread, is_part = rotation.spread, num_asking is not None
        if self.narrow is not None and self.has_kernels:
            mixed, unit, mean = (
                t.flatten(2) for t in self.narrow.attend(query, key, value, spread, generated_only=is_part)
            )
            return self.o(Rows(*torch.ops.lyra.narrow(mixed, unit, mean)))
        if self.narrow is not None:
            return self.o(self.narrow(query, key, value, spread, generated_only=is_part).flatten(2))
        if spread is not None:
            return self.o(spread.attend(query, key, value, generated_only=is_part).flatten(2))
        memory = KeyValue(key=key.transpose(1, 2), value=value.transpose(1, 2))
        return self.o(attend(query.transpose(1, 2), memory))

    def _turn(self, x: Tensor, norm: RMSNorm, rotation: Rotation) -> Float[Tensor, "b l heads dim"]:
        if not self.has_kernels:
            return rotate(split_heads(norm(x), self.num_heads), rotation)
        turned: Tensor = torch.ops.lyra.turn(x, norm.weight, rotation.cos, rotation.sin, self.num_heads, norm.eps)
        return turned


class CrossAttention(nn.Module):
    """Attention to text and, separately with the same query, to image tokens; the two results are
    added.

    No mask: text positions beyond the caption hold zeros before the embedding and are attended
    like the others.
    """

    def __init__(self, dim: int, num_heads: int, eps: float, has_image: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        if has_image:
            self.k_img = nn.Linear(dim, dim)
            self.v_img = nn.Linear(dim, dim)
            self.norm_k_img = RMSNorm(dim, eps)

    def project_text(self, tokens: Float[Tensor, "b s d"]) -> KeyValue:
        """Keys and values of embedded text tokens."""
        return self._memory(self.norm_k(self.k(tokens)), self.v(tokens))

    def project_image(self, tokens: Float[Tensor, "b s d"]) -> KeyValue:
        """Keys and values of embedded image tokens."""
        return self._memory(self.norm_k_img(self.k_img(tokens)), self.v_img(tokens))

    def _memory(self, key: Tensor, value: Tensor) -> KeyValue:
        return KeyValue(
            key=split_heads(key, self.num_heads).transpose(1, 2),
            value=split_heads(value, self.num_heads).transpose(1, 2),
        )

    def forward(
        self, x: Float[Tensor, "b l d"] | Rows, text: KeyValue, image: KeyValue | None
    ) -> Float[Tensor, "b l d"]:
        """Attend.

        Args:
            x: normalised tokens. [b l d]
            text: projected text.
            image: projected image tokens, or None for a network without an image branch.
        """
        query = split_heads(self.norm_q(self.q(x)), self.num_heads).transpose(1, 2)
        mixed = attend(query, text)
        if image is not None:
            mixed = mixed + attend(query, image)
        return self.o(mixed)
