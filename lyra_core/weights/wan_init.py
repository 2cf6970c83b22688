"""Where training of a Lyra 2 transformer begins: the weights of Wan 2.1, and values for what Wan does not have.

Wan 2.1 (arXiv:2503.20314) gives all layers it shares. Each patch embedding of the packed history starts as the base
patch embedding spread over its larger patch, so that a constant patch gives the same token; camera and correspondence
encoders start without effect (their last layer is zero), so that the first forward pass is that of Wan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import StateDictError
from lyra_core.identity import rng_seed
from lyra_core.weights.keys import require_match, section

PATCH = (1, 2, 2)
PACKED = "clean_patch_embeddings."
ADDED = (PACKED, "accum_")
PATCH_EMBEDDING = "patch_embedding.weight"


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


class WanStart(Mapping[str, Tensor]):
    """A complete state dict for training, from those of Wan 2.1 image-to-video; each tensor is made when asked for.

    Nothing large is kept, so that every process of a sharded network reads one tensor at a time.

    Attributes:
        shapes: of all tensors, by name.
    """

    def __init__(
        self,
        wan: Mapping[str, Tensor],
        shapes: Mapping[str, Sequence[int]],
        poolings: Sequence[tuple[int, int, int]],
        seed: int,
    ) -> None:
        """Compare names and shapes; values are read later.

        Args:
            wan: tensors of Wan 2.1; its patch embedding may be the original 3D convolution.
            shapes: shapes of the Lyra 2 transformer by name.
            poolings: of each history segment, in segment order (`Segment.pooling`).
            seed: of the first layers of the correspondence encoders.

        Raises:
            StateDictError: layers that Wan should have are missing or differ in shape, or Wan has unknown ones.
        """
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._wan, self._poolings, self._seed = wan, tuple(poolings), seed
        known: Mapping[str, Sequence[int]] = getattr(wan, "shapes", None) or {n: t.shape for n, t in wan.items()}
        found = {name: tuple(shape) for name, shape in known.items()}
        if len(found.get(PATCH_EMBEDDING, ())) > 2:
            found[PATCH_EMBEDDING] = (found[PATCH_EMBEDDING][0], math.prod(found[PATCH_EMBEDDING][1:]))
        shared = {name: shape for name, shape in self.shapes.items() if not _is_added(name)}
        require_match(found, shared, "the Wan 2.1 checkpoint")
        added = {name for name in self.shapes if name.startswith(PACKED)}
        packed = {f"{PACKED}{i}.{end}" for i in range(len(self._poolings)) for end in ("weight", "bias")}
        if added != packed:
            raise StateDictError(f"the network has the packed embeddings {sorted(added)}, wanted {sorted(packed)}")

    def __getitem__(self, name: str) -> Tensor:
        """The tensor in its first values, in the checkpoint's dtype.

        Raises:
            KeyError: the network has no such tensor.
            StateDictError: the checkpoint's holds NaN or infinity.
        """
        shape = self.shapes[name]
        if name.startswith(PACKED):
            segment, end = name.removeprefix(PACKED).split(".")
            base = self._shared(f"patch_embedding.{end}")
            made = base if end == "bias" else spread_patch_embedding(base.float(), self._poolings[int(segment)])
            return made.to(base.dtype)
        if _is_added(name):
            return self._fresh(name, shape)
        return self._shared(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _shared(self, name: str) -> Tensor:
        tensor = self._wan[name]
        if not bool(torch.isfinite(tensor).all()):
            raise StateDictError(f"the Wan 2.1 checkpoint holds NaN or infinity:\n{section('not finite', [name])}")
        return tensor.flatten(1) if name == PATCH_EMBEDDING else tensor

    def _fresh(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name.startswith("accum_"):
            return torch.zeros(shape, dtype=torch.float32 if name.endswith("hours") else torch.int64)
        dtype = self._wan["patch_embedding.bias"].dtype
        if ".buffer_encoder.0." in name:
            # Only the last of the two layers is zero: with both zero neither would ever receive a gradient.
            bound = 1 / math.sqrt(shape[1])
            generator = torch.Generator().manual_seed(rng_seed(str(self._seed), name))
            return torch.empty(shape).uniform_(-bound, bound, generator=generator).to(dtype)
        return torch.zeros(shape, dtype=dtype)


def _is_added(name: str) -> bool:
    return name.startswith(ADDED) or ".cam_encoder." in name or ".buffer_encoder." in name
