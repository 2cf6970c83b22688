"""The widths of the video network, and its two presets.

The presets are data: `LYRA2_14B` has the shapes of the released checkpoint, `TINY` those of the
golden vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lyra_core.errors import RecipeError
from lyra_core.video.dit.layout import HistoryLayout


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Every width of the network.

    Attributes:
        layout: history layout in its written form (lyra_core.video.dit.layout).
        latent_channels: channels of a latent, and of the predicted velocity.
        condition_channels: channels concatenated to the latents in the content tokens (mask and
            condition latents).
        ray_channels: channels of the ray map on the latent grid.
        correspondence_channels: channels of the correspondence maps on the latent grid.
        correspondence_frequencies: octaves of their sine and cosine features.
        squeeze_dim: width between the two layers of the correspondence encoder.
        patch: latent rows and columns per token.
        dim: token width.
        ffn_dim: hidden width of the feed-forward.
        num_heads: attention heads.
        num_layers: blocks.
        time_dim: width of the time sinusoid.
        text_dim: width of text embeddings, None for a network without cross-attention.
        image_dim: width of image tokens, None for a network without an image branch.
        eps: of the norms inside the blocks.

    Raises:
        RecipeError: widths that do not divide, an image branch without text, a head too narrow to
            rotate.
    """

    layout: str
    latent_channels: int
    condition_channels: int
    ray_channels: int
    correspondence_channels: int
    correspondence_frequencies: int
    squeeze_dim: int
    patch: int
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    time_dim: int
    text_dim: int | None
    image_dim: int | None
    eps: float

    def __post_init__(self) -> None:
        HistoryLayout.parse(self.layout)
        if self.dim % self.num_heads or self.head_dim % 2 or self.head_dim < 6:
            raise RecipeError(
                f"dim must be num_heads times an even head width of at least 6, "
                f"found dim={self.dim} and num_heads={self.num_heads}"
            )
        if self.time_dim % 2:
            raise RecipeError(f"time_dim must be even, found {self.time_dim}")
        if self.image_dim is not None and self.text_dim is None:
            raise RecipeError("an image branch needs text: set text_dim, or image_dim=None")

    @cached_property
    def history_layout(self) -> HistoryLayout:
        """The layout, parsed."""
        return HistoryLayout.parse(self.layout)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads

    @property
    def content_channels(self) -> int:
        """Channels of a content token's latent pixel."""
        return self.latent_channels + self.condition_channels


LYRA2_14B = DiTConfig(
    layout="f1k1f4s2f1s1f16k4f2k2f1k1_g20",
    latent_channels=16,
    condition_channels=20,
    ray_channels=384,
    correspondence_channels=1280,
    correspondence_frequencies=2,
    squeeze_dim=256,
    patch=2,
    dim=5120,
    ffn_dim=13824,
    num_heads=40,
    num_layers=40,
    time_dim=256,
    text_dim=4096,
    image_dim=1280,
    eps=1e-6,
)

TINY = DiTConfig(
    layout="f1k1f4s2f1s1f16k4f2k2f1k1_g20",
    latent_channels=16,
    condition_channels=20,
    ray_channels=384,
    correspondence_channels=1280,
    correspondence_frequencies=2,
    squeeze_dim=4,
    patch=2,
    dim=32,
    ffn_dim=56,
    num_heads=2,
    num_layers=2,
    time_dim=32,
    text_dim=32,
    image_dim=1280,
    eps=1e-6,
)
