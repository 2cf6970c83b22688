"""Where training of a Lyra 2 transformer begins: the weights of Wan 2.1, and values for what Wan
does not have.

Wan 2.1 (arXiv:2503.20314) gives all layers it shares. Each patch embedding of the packed history
starts as the base patch
embedding spread over its larger patch, so that a constant patch gives the same token; camera and
correspondence encoders
start without effect (their last layer is zero), so that the first forward pass is that of Wan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import StateDictError
from lyra_core.weights.keys import require_match, section

PATCH = (1, 2, 2)
ADDED = ("clean_patch_embeddings.", "accum_")


def spread_patch_embedding(
    weight: Float[Tensor, "out inputs"],
    pooling: tuple[int, int, int],
    patch: tuple[int, int, int] = PATCH,
) -> Float[Tensor, "out packed"]:
    """The base patch embedding for larger patches, giving the same token for a constant patch.

    Args:
        weight: of the base embedding, inputs ordered channel, time, row, column. [out, c*pt*ph*pw]
        pooling: how many base patches become one along time, rows and columns.
        patch: base patch, in latent frames, rows and columns.

    Returns:
        inputs in the same order, of the larger patch. [out, packed]
    """
    spread = weight.reshape(weight.shape[0], -1, *patch)
    for axis, factor in enumerate(pooling, start=2):
        spread = spread.repeat_interleave(factor, dim=axis)
    return (spread / math.prod(pooling)).flatten(1)


def initialise_from_wan(
    wan: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    poolings: Sequence[tuple[int, int, int]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """A complete state dict for training, from the weights of Wan 2.1 image-to-video.

    Args:
        wan: tensors of Wan 2.1; its patch embedding may be the original 3D convolution.
        shapes: shapes of the Lyra 2 transformer by name.
        poolings: of each history segment, in segment order (`Segment.pooling`).
        generator: draws the first layers of the correspondence encoders.

    Raises:
        StateDictError: layers that Wan should have are missing or differ in shape, or Wan has
            unknown ones.
    """
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    added = {name for name in wanted if _is_added(name)}
    base = dict(wan.items())
    if "patch_embedding.weight" in base:
        base["patch_embedding.weight"] = base["patch_embedding.weight"].flatten(1)
    require_match(
        {name: tuple(tensor.shape) for name, tensor in base.items()},
        {name: shape for name, shape in wanted.items() if name not in added},
        "the Wan 2.1 checkpoint",
    )
    for segment, pooling in enumerate(poolings):
        prefix = f"clean_patch_embeddings.{segment}"
        weight = base["patch_embedding.weight"].float()
        base[f"{prefix}.weight"] = spread_patch_embedding(weight, pooling)
        base[f"{prefix}.bias"] = base["patch_embedding.bias"].clone()
    dtype = base["patch_embedding.weight"].dtype
    for name in sorted(added - {*base}):
        base[name] = _fresh(name, wanted[name], generator)
    require_match({name: tuple(tensor.shape) for name, tensor in base.items()}, wanted, "the initial state")
    if bad := [name for name, tensor in base.items() if not torch.isfinite(tensor).all()]:
        raise StateDictError(f"the Wan 2.1 checkpoint holds NaN or infinity:\n{section('not finite', bad)}")
    return {
        name: tensor if not tensor.is_floating_point() or name.startswith("accum_") else tensor.to(dtype)
        for name, tensor in base.items()
    }


def _is_added(name: str) -> bool:
    return name.startswith(ADDED) or ".cam_encoder." in name or ".buffer_encoder." in name


def _fresh(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.startswith("accum_"):
        return torch.zeros(shape, dtype=torch.float32 if name.endswith("hours") else torch.int64)
    if ".buffer_encoder.0." in name:
        # Only the last of the two layers is zero: with both zero neither would ever receive a
        # gradient.
        bound = 1 / math.sqrt(shape[1])
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return torch.zeros(shape)
