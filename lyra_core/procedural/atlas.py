"""All textures of a split in one mip-mapped table, so that a whole batch of scenes samples them without aliasing."""

from __future__ import annotations

import functools
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.procedural.photographs import load_photographs, square_crops
from lyra_core.procedural.textures import KIND_INDEX, KINDS, make_texture
from lyra_core.procedural.workers import spread

if TYPE_CHECKING:
    from typing import Self

SPLITS = ("train", "heldout")


def stream_seed(seed: int, split: str) -> int:
    """The seed of the random stream of a split: even for training, odd for held-out, so that the two never meet.

    Raises:
        ConfigError: an unknown split or a negative seed.
    """
    if split not in SPLITS:
        raise ConfigError(f"a split is one of {', '.join(SPLITS)}, found {split!r}")
    if seed < 0:
        raise ConfigError(f"seeds of procedural worlds are 0 or larger, found {seed}")
    return 2 * seed + SPLITS.index(split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Atlas:
    """Square textures with their mip pyramids.

    Attributes:
        texels: red | green << 8 | blue << 16; pyramids of one texture after the other, finest level first. [p] int32
        size: texels of a side at the finest level, a power of two.
        first: index of the first texture of each kind. [kinds]
        count: textures of each kind. [kinds]
        ranges: the same two numbers of each kind, on the host.
    """

    texels: Int[Tensor, " p"]
    size: int
    first: Int[Tensor, " kinds"]
    count: Int[Tensor, " kinds"]
    ranges: tuple[tuple[int, int], ...]

    @property
    def levels(self) -> int:
        """Mip levels, the last of one texel."""
        return self.size.bit_length()

    @property
    def stride(self) -> int:
        """Texels of one pyramid."""
        return sum((self.size >> level) ** 2 for level in range(self.levels))

    def to(self, device: str | torch.device) -> Self:
        """The same atlas on another device."""
        return replace(
            self,
            texels=self.texels.to(device),
            first=self.first.to(device),
            count=self.count.to(device),
        )

    def textures(self, kind: Int[Tensor, ...], variant: Float[Tensor, ...]) -> Int[Tensor, ...]:
        """Texture indices of kinds and variants in [0, 1)."""
        count = self.count[kind]
        step = (variant * count).floor().to(count.dtype)
        return self.first[kind] + torch.minimum(step, count - 1)


def pack(levels: list[Tensor]) -> Tensor:
    """Mip levels of one texture, floats in [0, 1], as packed texels."""
    flat = torch.cat([level.reshape(-1, 3) for level in levels])
    byte = (flat * 255).round().clamp(0, 255).to(torch.int32)
    return byte[:, 0] | byte[:, 1] << 8 | byte[:, 2] << 16


def pyramid(texture: np.ndarray) -> list[Tensor]:
    """Box-filtered mip levels, finest first."""
    levels = [torch.from_numpy(texture)]
    while levels[-1].shape[0] > 1:
        level = levels[-1].permute(2, 0, 1)[None]
        levels.append(torch.nn.functional.avg_pool2d(level, 2)[0].permute(1, 2, 0))
    return levels


def _packed_texture(request: tuple[str, int, int]) -> np.ndarray:
    """Mip levels of one texture (kind, seed, size) as packed texels."""
    return pack(pyramid(make_texture(*request))).numpy()


def build_atlas(
    split: str,
    *,
    per_kind: int = 3,
    size: int = 256,
    photographs: str | Path | None = None,
    crops_per_photograph: int = 8,
    workers: Executor | None = None,
) -> Atlas:
    """Textures of every kind, and crops of photographs among the pictures.

    Args:
        split: "train" or "heldout"; no texture or photograph is in both.
        per_kind: procedural textures of each kind.
        size: texels of a side, a power of two.
        photographs: folder of photographs, or None for procedural pictures only.
        crops_per_photograph: how many textures each photograph gives.
        workers: processes that make the textures.

    Raises:
        ConfigError: an unknown split, or a size that is no power of two.
        SeedError: photographs that cannot be read.
    """
    if size < 8 or size & (size - 1):
        raise ConfigError(f"textures have a power of two of texels on each side (8 or more), found {size}")
    requests = [(kind, stream_seed(variant, split), size) for kind in KINDS for variant in range(per_kind)]
    textures = iter(spread(_packed_texture, requests, workers))
    packed: list[Tensor] = []
    first: list[int] = []
    count: list[int] = []
    for kind in KINDS:
        first.append(len(packed))
        packed += [torch.from_numpy(next(textures)) for _ in range(per_kind)]
        if kind == "picture" and photographs is not None:
            rng = np.random.Generator(np.random.PCG64([len(KINDS), stream_seed(0, split)]))
            for photograph in load_photographs(photographs, split):
                crops = square_crops(photograph, size, crops_per_photograph, rng)
                packed += [pack(pyramid(crop)) for crop in crops]
        count.append(len(packed) - first[-1])
    return Atlas(
        texels=torch.cat(packed),
        size=size,
        first=torch.tensor(first),
        count=torch.tensor(count),
        ranges=tuple(zip(first, count, strict=True)),
    )


@functools.lru_cache(maxsize=4)
def default_atlas(split: str) -> Atlas:
    """A small atlas without photographs, built once a process: what tests and examples use."""
    return build_atlas(split, size=128)


def sample(
    atlas: Atlas,
    texture: Int[Tensor, "*r"],
    uv: Float[Tensor, "*r 2"],
    footprint: Float[Tensor, "*r"],
) -> Float[Tensor, "*r 3"]:
    """Trilinear samples (bilinear in the two nearest mip levels); pictures repeat mirrored, everything else as it is.

    Args:
        atlas: the textures.
        texture: index of each sample.
        uv: in repeats of the texture; v points down.
        footprint: width of a sample in repeats.

    Returns:
        sRGB in [0, 1].
    """
    lod = torch.log2(footprint.clamp(min=1e-9) * atlas.size).clamp(0, atlas.levels - 1.001)
    level = lod.floor()
    fine = level.to(torch.int64)
    mirror = texture >= atlas.first[KIND_INDEX["picture"]]
    folded = 1 - (1 - torch.remainder(uv, 2.0)).abs()
    wrapped = torch.where(mirror[..., None], folded, torch.remainder(uv, 1.0))
    weight = (lod - level)[..., None]
    return (1 - weight) * _bilinear(atlas, texture, wrapped, fine, mirror) + weight * _bilinear(
        atlas, texture, wrapped, fine + 1, mirror
    )


def _bilinear(atlas: Atlas, texture: Tensor, uv: Tensor, level: Tensor, mirror: Tensor) -> Tensor:
    side = torch.full_like(level, atlas.size) >> level
    # sum of 4^(log2 size - i) for i < level, in closed form: the levels before this one
    offset = (4 * atlas.size * atlas.size - 4 * side * side) // 3
    start = texture * atlas.stride + offset
    at = uv * side[..., None] - 0.5
    low = at.floor()
    fraction = at - low
    x0, y0 = low[..., 0].to(torch.int64), low[..., 1].to(torch.int64)
    last = side - 1
    # sides are powers of two: a bit mask is the remainder, for -1 too
    x1 = torch.where(mirror, (x0 + 1).minimum(last), (x0 + 1) & last)
    y1 = torch.where(mirror, (y0 + 1).minimum(last), (y0 + 1) & last)
    x0 = torch.where(mirror, x0.clamp(min=0), x0 & last)
    y0 = torch.where(mirror, y0.clamp(min=0), y0 & last)
    fx, fy = fraction[..., 0, None], fraction[..., 1, None]
    top = (1 - fx) * _unpack(atlas.texels[start + y0 * side + x0]) + fx * _unpack(atlas.texels[start + y0 * side + x1])
    foot = (1 - fx) * _unpack(atlas.texels[start + y1 * side + x0]) + fx * _unpack(atlas.texels[start + y1 * side + x1])
    return (1 - fy) * top + fy * foot


def _unpack(packed: Tensor) -> Tensor:
    return torch.stack([packed & 255, packed >> 8 & 255, packed >> 16 & 255], -1).to(torch.float32) / 255
