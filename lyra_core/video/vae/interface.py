"""What the rollout asks of a video autoencoder: the released one and the mini one both give it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.video.vae.layers import CausalCache


@runtime_checkable
class AutoencoderConfig(Protocol):
    """Shape of the latents."""

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        ...

    @property
    def spatial_factor(self) -> int:
        """Pixels along one side of a latent pixel."""
        ...

    @property
    def temporal_factor(self) -> int:
        """Frames of every latent but the first, which holds one."""
        ...


@runtime_checkable
class VideoAutoencoder(Protocol):
    """Deterministic, causal, and usable as a stream through its cache."""

    @property
    def config(self) -> AutoencoderConfig:
        """Shape of the latents."""
        ...

    def encode(
        self,
        video: Float[Tensor, "b 3 t h w"],
        cache: CausalCache | None = None,
        *,
        latents_per_window: int = 1,
    ) -> Float[Tensor, "b c n rows columns"]:
        """Normalised latents of a video in [-1, 1], or of its continuation."""
        ...

    def decode(
        self,
        latents: Float[Tensor, "b c n rows columns"],
        cache: CausalCache | None = None,
        *,
        latents_per_window: int = 1,
    ) -> Float[Tensor, "b 3 t h w"]:
        """Frames around [-1, 1] of latents, or of their continuation."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The weights; they tell the device."""
        ...
