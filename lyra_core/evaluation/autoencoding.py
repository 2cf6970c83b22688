"""Clips through the small video autoencoder and back: what it keeps of them.

Legend: b clips, t frames, h w pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.mini.vae import MiniVAE

Clips = Float[Tensor, "b t 3 h w"]


def to_video(clips: Clips) -> Float[Tensor, "b 3 t h w"]:
    """Clips as the autoencoder takes them, in [-1, 1]."""
    return (clips * 2 - 1).transpose(1, 2)


@torch.no_grad()
def reconstruct(model: MiniVAE, clips: Clips) -> Clips:
    """Clips through encoder and decoder, in pieces; sRGB in [0, 1]."""
    out = []
    for part in clips.split(16):
        with torch.autocast(part.device.type, torch.bfloat16, enabled=part.is_cuda):
            decoded = model.decode(model.encode(to_video(part)))
        out.append((decoded.float().transpose(1, 2) * 0.5 + 0.5).clamp(0, 1))
    return torch.cat(out)
