"""One transformer block of the video network, and its output head.

    camera tokens ---- cam_encoder ----------------------+
    correspondence - sin/cos - buffer_encoder - x valid -+-> bias
                                                           |
    x -+- norm1 - scale, shift -- v ------------------- self-attention - x gate -+- x
       |                       +- q, k of (. + bias) ----^                       |
       +-------------------------------------------------------------------------+
    x -+- norm3 - cross-attention(text) + (image) -+- x
    x -+- norm2 - scale, shift - FFN - x gate -----+- x

Modulation (shift, scale, gate) follows adaptive layer norm: Peebles & Xie 2023, "Scalable
Diffusion Models with Transformers", section 3.2. Parameters carry the names of the released
checkpoint.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.video.dit.attention import CrossAttention, KeyValue, SelfAttention
from lyra_core.video.dit.packing import sinusoidal_features
from lyra_core.video.dit.rope import Rotation
from lyra_core.video.dit.scaled_linear import Rows

Store = Literal["squeezed", "full"]


def linear_fp32(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer in fp32 whatever the dtype of its weights."""
    bias = None if layer.bias is None else layer.bias.float()
    return nn.functional.linear(x.float(), layer.weight.float(), bias)


def modulate(
    x: Float[Tensor, "b l d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]
) -> Float[Tensor, "b l d"]:
    """Scale and shift in fp32, the dtype of the time embedding; the result has the dtype of x."""
    return torch.addcmul(shift, x.float(), 1 + scale).to(x.dtype)


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward of one layer."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        eps: float,
        *,
        has_text: bool,
        has_image: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = SelfAttention(dim, num_heads, eps)
        if has_text:
            self.norm3 = nn.LayerNorm(dim, eps)
            self.cross_attn = CrossAttention(dim, num_heads, eps, has_image)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(ffn_dim, dim))
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        self.has_text = has_text
        self.has_kernels = False  # lyra_core.video.dit.block_kernels, for what lies between the products
        self.has_rows = False  # and tokens travel between norms and products in 8 bits

    def add_position_encoders(
        self, camera_dim: int, correspondence_dim: int, frequencies: int, squeeze_dim: int
    ) -> None:
        """Create the two encoders of the q, k bias (neither has a bias, so zero in is zero out)."""
        dim = self.modulation.shape[-1]
        self.cam_encoder = nn.Linear(camera_dim, dim, bias=False)
        self.buffer_encoder = nn.Sequential(
            nn.Linear(2 * frequencies * correspondence_dim, squeeze_dim, bias=False),
            nn.Linear(squeeze_dim, dim, bias=False),
        )

    def squeeze(self, waves: Float[Tensor, "b l wide"], validity: Float[Tensor, "l 1"]) -> Float[Tensor, "b l squeeze"]:
        """The wide half of the correspondence encoder; tokens without correspondence give 0."""
        return self.buffer_encoder[0](waves) * validity

    def bias_from_squeezed(
        self, camera: Float[Tensor, "b l c"], squeezed: Float[Tensor, "b l squeeze"]
    ) -> Float[Tensor, "b l d"]:
        """What is added to the inputs of q and k, from the squeezed correspondence."""
        return self.cam_encoder(camera) + self.buffer_encoder[1](squeezed)

    def bias_from_tokens(
        self,
        camera: Float[Tensor, "b l c"],
        correspondence: Float[Tensor, "b l q"],
        validity: Float[Tensor, "l 1"],
        frequencies: int,
    ) -> Float[Tensor, "b l d"]:
        """The same bias from the tokens: the plain reference of the two methods above."""
        waves = sinusoidal_features(correspondence, frequencies)
        return self.cam_encoder(camera) + self.buffer_encoder(waves) * validity

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        time: Float[Tensor, "b 6 d"],
        bias: Float[Tensor, "b l d"],
        rotation: Rotation,
        text: KeyValue | None,
        image: KeyValue | None,
        num_wanted: int | None = None,
    ) -> Float[Tensor, "b wanted d"]:
        """Apply the block.

        Args:
            x: tokens, in the dtype of the weights. [b l d]
            time: projected time embedding, float32. [b 6 d]
            bias: camera and correspondence, added to the inputs of q and k. [b l d]
            rotation: rotary positions.
            text: keys and values of the text, or None for a network without text.
            image: keys and values of the image tokens, or None.
            num_wanted: how many of the last tokens are wanted; None for all.
        """
        modulation = (self.modulation.float() + time).chunk(6, 1)
        if self.has_rows:
            return self._in_rows(x, modulation, bias, rotation, (text, image), num_wanted)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        attended = self.self_attn(modulate(self.norm1(x), shift1, scale1), bias, rotation, num_wanted)
        x = x if num_wanted is None else x[:, -num_wanted:]
        x = x + attended * gate1.to(x.dtype)
        if text is not None:
            x = x + self.cross_attn(self.norm3(x), text, image)
        return x + self._feed(modulate(self.norm2(x), shift2, scale2)) * gate2.to(x.dtype)

    def _feed(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        inner = self.ffn[0]
        if not (self.has_kernels and isinstance(inner, nn.Linear)):
            return self.ffn(x)
        return self.ffn[2](torch.ops.lyra.linear_gelu(x, inner.weight, inner.bias))

    def _in_rows(
        self,
        x: Float[Tensor, "b l d"],
        modulation: tuple[Tensor, ...],
        bias: Float[Tensor, "b l d"],
        rotation: Rotation,
        memories: tuple[KeyValue | None, KeyValue | None],
        num_wanted: int | None,
    ) -> Float[Tensor, "b wanted d"]:
        """The same where products are made in 8 bits: a norm's kernel also adds the residual and narrows the rows."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        norm_rows, norm3, eps = torch.ops.lyra.norm_rows, self.norm3 if self.has_text else None, self.norm1.eps
        _, *rows = norm_rows(x, None, None, None, None, shift1, scale1, bias, eps)
        gate: Tensor | None = gate1
        mixed = self.self_attn.attend(Rows(*rows[:2]), Rows(*rows[2:]), rotation, num_wanted)
        x = x if num_wanted is None else x[:, -num_wanted:]
        text, image = memories
        if text is not None and norm3 is not None:
            x, *rows = norm_rows(x, mixed, gate, norm3.weight, norm3.bias, None, None, None, eps)
            mixed, gate = self.cross_attn(Rows(*rows[:2]), text, image), None
        x, *rows = norm_rows(x, mixed, gate, None, None, shift2, scale2, None, eps)
        return x + self.ffn(Rows(*rows[:2])) * gate2.to(x.dtype)

    def from_tokens(
        self,
        x: Float[Tensor, "b l d"],
        time: Float[Tensor, "b 6 d"],
        rotation: Rotation,
        camera: Float[Tensor, "b l c"],
        waves: Float[Tensor, "b l wide"],
        validity: Float[Tensor, "l 1"],
        text: Float[Tensor, "b s d"] | None,
        image: Float[Tensor, "b n d"] | None,
    ) -> Float[Tensor, "b l d"]:
        """`forward` with everything a block derives from its weights made inside, for training.

        One call touches all parameters of the block and no others: what is sharded over processes is gathered once
        for it, and what is checkpointed is computed again from a few tensors that all blocks share.

        Args:
            x: tokens. [b l d]
            time: projected time embedding, float32. [b 6 d]
            rotation: rotary positions.
            camera: camera tokens. [b l c]
            waves: sine and cosine features of the correspondence tokens. [b l wide]
            validity: 0 for tokens without correspondence. [l 1]
            text: embedded text tokens, or None for a network without text.
            image: embedded image tokens, or None for a network without an image branch.
        """
        bias = self.bias_from_squeezed(camera, self.squeeze(waves, validity))
        memories = (
            None if text is None else self.cross_attn.project_text(text),
            None if image is None else self.cross_attn.project_image(image),
        )
        return self(x, time, bias, rotation, *memories)


class Head(nn.Module):
    """Modulated norm and projection to patch values, in fp32: its output is the velocity itself."""

    def __init__(self, dim: int, out_features: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.head = nn.Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.zeros(1, 2, dim))

    def forward(self, x: Float[Tensor, "b l d"], time: Float[Tensor, "b d"]) -> Float[Tensor, "b l features"]:
        """Project tokens; `time` is the embedding before its projection. Returns float32."""
        shift, scale = (self.modulation.float() + time[:, None]).chunk(2, 1)
        return linear_fp32(self.head, modulate(self.norm(x.float()), shift, scale))


class ImageEmbedding(nn.Module):
    """Image tokens to the width of the network."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim),
            nn.Linear(image_dim, image_dim),
            nn.GELU(),
            nn.Linear(image_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, tokens: Float[Tensor, "b s c"]) -> Float[Tensor, "b s d"]:
        """Embed."""
        return self.proj(tokens)


def time_sinusoid(timestep: Tensor, width: int) -> Float[Tensor, "b width"]:
    """[cos | sin] of the timestep at `width` / 2 frequencies from 1 to 1/10000 (Vaswani et al.
    2017, section 3.5).

    Computed in float64, as timesteps near 1000 leave float32 few digits of phase; returned as
    float32.
    """
    half = width // 2
    exponent = -torch.arange(half, dtype=torch.float64, device=timestep.device) / half
    phase = timestep.double()[:, None] * 10000.0**exponent
    return torch.cat((phase.cos(), phase.sin()), dim=1).float()
