"""Small encoders of captions and frames in the places of the released ones, for tries without their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.mini.encoders import ByteText, FrameTokens
from lyra_core.video.dit.config import DiTConfig


def stand_in_encoders(
    config: DiTConfig, device: str
) -> tuple[Callable[[Sequence[str]], Tensor], Callable[[Tensor], Tensor]]:
    """Frozen encoders of captions and of frames with equal random weights in every process.

    Raises:
        ConfigError: a network without text or image branch.
    """
    if config.text_dim is None or config.image_dim is None:
        raise ConfigError("stand-in encoders need a network with text_dim and image_dim")
    with torch.random.fork_rng(devices=[]):
        # embeddings and convolutions draw from the global generator, which is put back afterwards
        torch.random.default_generator.manual_seed(0)
        text, image = ByteText(config.text_dim), FrameTokens(config.image_dim)
    return (
        text.to(device).requires_grad_(requires_grad=False),
        image.to(device).requires_grad_(requires_grad=False),
    )
