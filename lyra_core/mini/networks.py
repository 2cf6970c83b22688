"""The trained parts of the mini video network as one module: transformer, caption bytes and frame tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lyra_core.errors import RecipeError
from lyra_core.mini.encoders import ByteText, FrameTokens
from lyra_core.video.dit.config import DiTConfig
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import build_dit


class MiniNetworks(nn.Module):
    """What a training run of the mini video model moves."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.text_dim is None or config.image_dim is None:
            raise RecipeError("the mini networks read captions and frames: set text_dim and image_dim")
        self.dit = build_dit(config)
        self.text = ByteText(config.text_dim)
        self.image = FrameTokens(config.image_dim)

    def complete(
        self, inputs: ChunkInputs, captions: UInt8[Tensor, "b s"], last_frames: Float[Tensor, "b 3 h w"]
    ) -> ChunkInputs:
        """Inputs with text and image tokens."""
        return replace(inputs, text=self.text.embed(captions), image=self.image(last_frames))

    def forward(
        self,
        latents: Float[Tensor, "b c n r q"],
        timestep: Tensor,
        inputs: ChunkInputs,
        captions: UInt8[Tensor, "b s"],
        last_frames: Float[Tensor, "b 3 h w"],
    ) -> Float[Tensor, "b c n r q"]:
        """The velocity of noisy latents; nothing is prepared, as in training."""
        context = self.dit.prepare_context(self.complete(inputs, captions, last_frames))
        return self.dit(latents, timestep, context)


def build_mini_networks(config: DiTConfig, seed: int, device: torch.device | str = "cpu") -> MiniNetworks:
    """Networks with the first weights of a training run, float32."""
    from lyra_core.video.dit.network import initialise

    with torch.random.fork_rng(devices=[]):
        # embeddings and convolutions draw from the global generator, which is put back afterwards
        torch.random.default_generator.manual_seed(seed)
        networks = MiniNetworks(config)
    initialise(networks.dit, torch.Generator().manual_seed(seed))
    return networks.to(device)
