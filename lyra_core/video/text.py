"""The caption encoder: UMT5's encoder, and the cleaning and padding of captions around it.

UMT5: Chung et al. 2023, "UniMax"; encoder as in Raffel et al. 2020, "T5", section 2.1, gated as in
Shazeer 2020, "GLU Variants", with its own relative positions in every layer. Parameters carry the
names of the released checkpoint.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lyra_core.errors import RecipeError, WeightsError
from lyra_core.extras import require
from lyra_core.video.dit.attention import RMSNorm, split_heads

TEXT_LENGTH = 512
MAX_DISTANCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Widths of the caption encoder.

    Attributes:
        vocabulary: number of token ids.
        dim: width of tokens and of the embedding.
        attention_dim: width of all heads together.
        ffn_dim: hidden width of the gated feed-forward.
        num_heads: attention heads.
        num_layers: blocks.
        num_buckets: relative distances that are told apart.

    Raises:
        RecipeError: heads that do not divide the attention width.
    """

    vocabulary: int
    dim: int
    attention_dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    num_buckets: int = 32

    def __post_init__(self) -> None:
        if self.attention_dim % self.num_heads:
            raise RecipeError(
                f"attention_dim must be a multiple of num_heads, found {self.attention_dim} and {self.num_heads}"
            )


UMT5_XXL = TextConfig(
    vocabulary=256384,
    dim=4096,
    attention_dim=4096,
    ffn_dim=10240,
    num_heads=64,
    num_layers=24,
)


def distance_buckets(length: int, num_buckets: int, device: torch.device) -> Int[Tensor, "q k"]:
    """Bucket of each key's distance from each query ("T5", section 2.1, last paragraph).

    Half of the buckets are for keys after the query; in each half the first half counts single
    steps and the rest grows logarithmically up to MAX_DISTANCE.
    """
    positions = torch.arange(length, device=device)
    offset = positions[None] - positions[:, None]
    half = num_buckets // 2
    exact = half // 2
    distance = offset.abs()
    growth = torch.log(distance.clamp(min=1).float() / exact) / log(MAX_DISTANCE / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


class TextAttention(nn.Module):
    """Attention without scaling, with a learned bias for relative positions."""

    def __init__(self, dim: int, attention_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, attention_dim, bias=False)
        self.k = nn.Linear(dim, attention_dim, bias=False)
        self.v = nn.Linear(dim, attention_dim, bias=False)
        self.o = nn.Linear(attention_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "b s d"], bias: Float[Tensor, "b heads s s"]) -> Float[Tensor, "b s d"]:
        """Attend; the softmax is in fp32 because unscaled scores are large."""
        query, key, value = (
            split_heads(project(x), self.num_heads).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        weights = ((query @ key.mT).float() + bias).softmax(-1).to(x.dtype)
        return self.o((weights @ value).transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """Feed-forward whose hidden layer is gated by a GELU."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(dim, ffn_dim, bias=False), nn.GELU(approximate="tanh"))
        self.fc1 = nn.Linear(dim, ffn_dim, bias=False)
        self.fc2 = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Apply."""
        return self.fc2(self.fc1(x) * self.gate(x))


class RelativePositions(nn.Module):
    """A bias for each bucket of distances and each head."""

    def __init__(self, num_buckets: int, num_heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_buckets, num_heads)

    def forward(self, buckets: Int[Tensor, "q k"]) -> Float[Tensor, "heads q k"]:
        """Look the buckets up."""
        return self.embedding(buckets).permute(2, 0, 1)


class TextBlock(nn.Module):
    """One layer of the encoder."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.dim, 1e-6)
        self.attn = TextAttention(config.dim, config.attention_dim, config.num_heads)
        self.norm2 = RMSNorm(config.dim, 1e-6)
        self.ffn = GatedFeedForward(config.dim, config.ffn_dim)
        self.pos_embedding = RelativePositions(config.num_buckets, config.num_heads)

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        buckets: Int[Tensor, "s s"],
        hidden: Float[Tensor, "b 1 1 s"],
    ) -> Float[Tensor, "b s d"]:
        """Apply; `hidden` is -inf-like at padded keys."""
        bias = self.pos_embedding(buckets).float() + hidden
        x = x + self.attn(self.norm1(x), bias)
        return x + self.ffn(self.norm2(x))


class TextEncoder(nn.Module):
    """Token ids to embeddings."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.dim)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, 1e-6)

    def forward(self, ids: Int[Tensor, "b s"], is_token: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Embed.

        Args:
            ids: padded token ids. [b s]
            is_token: False at padding. [b s]

        Returns:
            Last hidden state, zero at padding. [b s dim]
        """
        buckets = distance_buckets(ids.shape[1], self.config.num_buckets, ids.device)
        lowest = torch.finfo(torch.float32).min
        hidden = torch.where(is_token, 0.0, lowest)[:, None, None]
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, buckets, hidden)
        return self.norm(x) * is_token[..., None]


def build_text_encoder(
    config: TextConfig, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """Build the encoder with torch's default weights ("meta": shapes only)."""
    with torch.device(device):
        return TextEncoder(config).to(dtype)


_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        "\ufb00": "ff",
        "\ufb01": "fi",
        "\ufb02": "fl",
        "\ufb03": "ffi",
        "\ufb04": "ffl",
        **{chr(0xFF01 + i): chr(0x21 + i) for i in range(94)},
        "\u3000": " ",
    }
)


def clean_caption(caption: str) -> str:
    """Plain quotes and letters, no entities, control characters or repeated white space.

    What the reference implementation gets from ftfy and html, except that text decoded with a wrong
    character set is not repaired.
    """
    plain = unicodedata.normalize("NFC", caption.translate(_TYPOGRAPHY))
    plain = html.unescape(html.unescape(plain))
    printable = (c for c in plain if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join("".join(printable).split())


@runtime_checkable
class Tokenizer(Protocol):
    """A tokenizer of the transformers library."""

    def __call__(self, text: list[str], **options: object) -> Mapping[str, Tensor]:
        """Token ids and attention mask."""


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read UMT5's tokenizer from a local folder; nothing is downloaded.

    Raises:
        MissingExtraError: transformers is not installed.
        WeightsError: no folder, or no tokenizer in it.
    """
    require("transformers", "reading the tokenizer of the text encoder")
    from transformers import AutoTokenizer

    folder = Path(folder)
    if not folder.is_dir():
        raise WeightsError(
            f"a folder with the files of the tokenizer google/umt5-xxl was wanted, "
            f"'{folder}' is none; download tokenizer.json or spiece.model and its configuration"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise WeightsError(f"'{folder}' holds no tokenizer that transformers can read: {error}") from error


@torch.no_grad()
def encode_captions(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    captions: list[str],
    length: int = TEXT_LENGTH,
) -> Float[Tensor, "n s d"]:
    """Embeddings of captions, cut or padded to `length` tokens, zero at padding. [n 512 4096]"""
    tokens = tokenizer(
        [clean_caption(caption) for caption in captions],
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="pt",
    )
    device = encoder.token_embedding.weight.device
    return encoder(tokens["input_ids"].to(device), tokens["attention_mask"].to(device).bool())
