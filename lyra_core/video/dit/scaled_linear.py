"""Linear layers in 8 bits: fp8 (e4m3) weights and inputs, one scale a row of each, products summed in float32.

A row is an output channel of the weights and a token of the inputs, so that one loud channel or token costs the others
no precision. Weights are converted once; inputs are scaled as they come, in the kernels of
block_kernels. The plain layer is what it is compared with; `multiply_reference` is the plain form of
the product.

Legend: m tokens, n output channels, k input channels.
"""

# ruff: noqa: ARG001

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.errors import RecipeError

NARROW = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of the format."""
SMALLEST_PEAK = 1e-12
"""Rows of zeros get the scale of this peak instead of a division by zero."""
MULTIPLE = 16
"""Channels that the matrix units take together."""


class Rows(NamedTuple):
    """Tokens in 8 bits.

    Attributes:
        values: fp8. [b l k]
        scale: what brings each token back, float32. [b l 1]
    """

    values: Tensor
    scale: Tensor

    def last(self, count: int) -> Rows:
        """The last tokens."""
        return Rows(self.values[:, -count:], self.scale[:, -count:])


def has_scaled_products(device: torch.device | str) -> bool:
    """Whether a device multiplies fp8 matrices with scales of rows: CUDA from compute capability 8.9 on."""
    device = torch.device(device)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def narrow_rows(x: Float[Tensor, "*m k"]) -> tuple[Tensor, Float[Tensor, "*m 1"]]:
    """Rows in 8 bits, and the float32 scales that bring them back: x is about values * scale."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_PEAK) / LARGEST
    return (wide / scale).clamp(-LARGEST, LARGEST).to(NARROW), scale


def multiply_reference(
    values: Float[Tensor, "m k"],
    scale: Float[Tensor, "m 1"],
    weight: Float[Tensor, "n k"],
    weight_scale: Float[Tensor, "1 n"],
    bias: Float[Tensor, " n"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "m n"]:
    """The scaled product in float32, on any device."""
    product = (values.float() @ weight.float().T) * scale * weight_scale
    return (product if bias is None else product + bias.float()).to(dtype)


# The schema is written out because the tests' shape checker hides the annotations.
_SCHEMA = "(Tensor values, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, ScalarType dtype) -> Tensor"


@torch.library.custom_op("lyra::multiply", mutates_args=(), schema=_SCHEMA)
def multiply(
    values: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The scaled product by the matrix units; arguments as of multiply_reference."""
    return torch._scaled_mm(
        _aligned(values),
        weight.T,
        scale_a=_aligned(scale),
        scale_b=weight_scale,
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


@multiply.register_fake
def _(
    values: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return values.new_empty(values.shape[0], weight.shape[0], dtype=dtype)


def _aligned(rows: Tensor) -> Tensor:
    """Rows from a multiple of 16 bytes on, as the product wants them: the last rows of others may begin elsewhere."""
    return rows.contiguous() if rows.data_ptr() % MULTIPLE == 0 else rows.clone(memory_format=torch.contiguous_format)


class ScaledLinear(nn.Module):
    """What takes the place of a linear layer whose products are to be made in 8 bits."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, *, has_gelu: bool = False, is_emulated: bool = False) -> None:
        """Convert a layer's weights, on their device.

        Args:
            layer: the plain layer.
            has_gelu: apply GELU (tanh form) to the input first.
            is_emulated: compute the product by its plain form, for devices that cannot.

        Raises:
            RecipeError: channels that are no multiples of 16.
        """
        super().__init__()
        if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
            raise RecipeError(
                f"a layer in 8 bits needs channels in multiples of {MULTIPLE}, "
                f"found {layer.in_features} to {layer.out_features}"
            )
        values, scale = narrow_rows(layer.weight.detach())
        self.register_buffer("weight", values)
        self.register_buffer("weight_scale", scale.T.contiguous())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.dtype = layer.weight.dtype
        self.has_gelu = has_gelu
        self.is_emulated = is_emulated

    def _narrow(self, x: Tensor) -> Rows:
        if self.is_emulated:
            return Rows(*narrow_rows(nn.functional.gelu(x, approximate="tanh") if self.has_gelu else x))
        operations = torch.ops.lyra  # of lyra_core.video.dit.block_kernels
        return Rows(*(operations.gelu_rows(x) if self.has_gelu else operations.narrow(x, None, None)))

    def forward(self, x: Float[Tensor, "b l k"] | Rows) -> Float[Tensor, "b l n"]:
        """Apply the layer; the result has the dtype the weights had."""
        values, scale = x if isinstance(x, Rows) else self._narrow(x)
        shape = values.shape[:-1]
        values, scale = values.flatten(0, 1), scale.flatten(0, 1)
        if self.is_emulated:
            product = multiply_reference(values, scale, self.weight, self.weight_scale, self.bias, self.dtype)
        else:
            product = multiply(values, scale, self.weight, self.weight_scale, self.bias, self.dtype)
        return product.unflatten(0, shape)
