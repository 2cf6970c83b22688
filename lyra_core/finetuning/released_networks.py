"""The released video network in training: its transformer, between frozen encoders of captions and frames.

The same objective and samples as for the mini model serve it; what differs is configuration (`REFERENCE` rollout,
`ChunkConfig(context_latents=None)`) and size, for which `fsdp.shard` spreads it over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lyra_core.mini.encoders import END
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import DiT


class ReleasedNetworks(nn.Module):
    """What a fine-tuning run moves (the transformer), with what it reads."""

    def __init__(self, dit: DiT, text: Callable[[Sequence[str]], Tensor], image: Callable[[Tensor], Tensor]) -> None:
        """`text` embeds captions [k s c], `image` frames in [-1, 1] [b n c]; both are frozen."""
        super().__init__()
        self.dit = dit
        self._text, self._image = (text,), (image,)  # in tuples: not part of what is trained and saved

    @torch.no_grad()
    def complete(
        self, inputs: ChunkInputs, captions: UInt8[Tensor, "b s"], last_frames: Float[Tensor, "b 3 h w"]
    ) -> ChunkInputs:
        """Inputs with text and image tokens."""
        words = [bytes(row[row != END].tolist()).decode(errors="ignore") for row in captions.cpu()]
        device = inputs.history.device
        return replace(inputs, text=self._text[0](words).to(device), image=self._image[0](last_frames).to(device))

    def forward(
        self,
        latents: Float[Tensor, "b c n r q"],
        timestep: Tensor,
        inputs: ChunkInputs,
        captions: UInt8[Tensor, "b s"],
        last_frames: Float[Tensor, "b 3 h w"],
    ) -> Float[Tensor, "b c n r q"]:
        """The velocity of noisy latents; nothing is prepared, as in training."""
        velocity = self.dit.forward_training(latents, timestep, self.complete(inputs, captions, last_frames))
        # sharded networks hang a hook on their output, which a view of another tensor may lose
        return velocity.clone()
