"""The rectified-flow objective of the video network, on chunks whose conditions are at hand.

x = (1 - sigma) clean + sigma noise, the network predicts noise - clean (Liu et al. 2023, "Rectified Flow").
"""

from __future__ import annotations

import torch

from lyra_core.video.context import ChunkInputs
from lyra_core.video.dit_config import DiTConfig


def random_inputs(
    config: DiTConfig, batch: int, rows: int, columns: int, generator: torch.Generator, text_tokens: int = 32
) -> ChunkInputs:
    """Conditions of the right shapes and no meaning, on the generator's device: to warm up and to measure speed."""
    layout, device = config.history_layout, generator.device

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    size = (rows, columns)
    return ChunkInputs(
        history=draw(batch, config.latent_channels, layout.num_history, *size),
        condition=draw(batch, config.condition_channels, layout.num_slots, *size),
        rays=draw(batch, config.ray_channels, layout.num_slots, *size),
        correspondence=draw(batch, config.correspondence_channels, layout.num_slots, *size),
        text=None if config.text_dim is None else draw(batch, text_tokens, config.text_dim),
        image=None if config.image_dim is None else draw(batch, 28, config.image_dim),
    )
