"""The image encoder: CLIP's vision tower up to its last block but one.

Radford et al. 2021, "CLIP"; ViT-H/14 as trained by OpenCLIP. The video network reads all tokens of
the last block but one, so the last block, the final norm and the projection of the released
checkpoint are not built. Parameters carry its names, without the prefix `visual.`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.errors import RecipeError
from lyra_core.video.dit.attention import KeyValue, attend, split_heads

VISUAL_PREFIX = "visual."
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Widths of the vision tower.

    Attributes:
        image_size_px: side of the square it sees.
        patch_px: side of a patch.
        dim: token width.
        mlp_ratio: hidden width of the feed-forward, in units of dim.
        num_heads: attention heads.
        num_layers: blocks of the released tower; one fewer is built.

    Raises:
        RecipeError: patches that do not fill the image, heads that do not divide the width.
    """

    image_size_px: int
    patch_px: int
    dim: int
    mlp_ratio: int
    num_heads: int
    num_layers: int

    def __post_init__(self) -> None:
        if self.image_size_px % self.patch_px or self.dim % self.num_heads or self.num_layers < 2:
            raise RecipeError(f"a vision tower needs whole patches, whole heads and two layers, found {self}")

    @property
    def num_tokens(self) -> int:
        """Patches and the class token."""
        return (self.image_size_px // self.patch_px) ** 2 + 1


CLIP_VIT_H14 = ImageConfig(image_size_px=224, patch_px=14, dim=1280, mlp_ratio=4, num_heads=16, num_layers=32)


def is_unused_key(key: str, config: ImageConfig) -> bool:
    """Whether a key of the released file belongs to a part that is not built."""
    if not key.startswith(VISUAL_PREFIX):
        return key == "log_scale" or key.startswith("textual.")
    name = key.removeprefix(VISUAL_PREFIX)
    last_block = f"transformer.{config.num_layers - 1}."
    return name == "head" or name.startswith(("post_norm.", last_block))


class Norm(nn.LayerNorm):
    """Layer norm in fp32, whatever the dtype around it: the tower runs in half precision."""

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Normalise."""
        wide = nn.functional.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return wide.to(x.dtype)


class ImageAttention(nn.Module):
    """Attention among the patches of one image."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Attend."""
        query, key, value = (
            split_heads(part, self.num_heads).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        return self.proj(attend(query, KeyValue(key=key, value=value)))


class ImageBlock(nn.Module):
    """One layer of the tower."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.norm1 = Norm(dim)
        self.attn = ImageAttention(dim, num_heads)
        self.norm2 = Norm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Apply."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """Pictures to tokens."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv2d(3, dim, config.patch_px, config.patch_px, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.zeros(1, config.num_tokens, dim))
        self.pre_norm = Norm(dim)
        self.transformer = nn.ModuleList(
            ImageBlock(dim, config.num_heads, config.mlp_ratio * dim) for _ in range(config.num_layers - 1)
        )

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n d"]:
        """Tokens of preprocessed images, the class token first. [b 257 1280]"""
        patches = self.patch_embedding(images.to(self.cls_embedding.dtype)).flatten(2).mT
        x = torch.cat((self.cls_embedding.expand(len(patches), -1, -1), patches), dim=1)
        x = self.pre_norm(x + self.pos_embedding)
        for block in self.transformer:
            x = block(x)
        return x


def build_image_encoder(
    config: ImageConfig, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ImageEncoder:
    """Build the tower with torch's default weights ("meta": shapes only)."""
    with torch.device(device):
        return ImageEncoder(config).to(dtype)


def preprocess_images(images: Float[Tensor, "b 3 h w"], size_px: int) -> Float[Tensor, "b 3 s s"]:
    """Squash to a square and normalise as CLIP expects.

    Bicubic without antialiasing and without keeping the aspect: so the released weights were used.

    Args:
        images: sRGB in [-1, 1]. [b 3 h w]
        size_px: side of the square.
    """
    square = nn.functional.interpolate(images.float(), (size_px, size_px), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    return (square * 0.5 + 0.5 - mean) / std


@torch.no_grad()
def encode_images(encoder: ImageEncoder, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
    """Tokens of pictures, sRGB in [-1, 1]. [b 257 1280]"""
    return encoder(preprocess_images(images, encoder.config.image_size_px))
