"""Captions and frames as tokens for the mini model: bytes and a small convolution in place of UMT5 and CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

CAPTION_BYTES = 96
FRAME_TOKEN_PX = 32
"""A frame has at least one token, so no side is shorter."""
END = 0


def caption_bytes(captions: Sequence[str], width: int = CAPTION_BYTES) -> UInt8[Tensor, "k s"]:
    """UTF-8 bytes of captions, cut and padded with zeros to a width."""
    rows = torch.zeros(len(captions), width, dtype=torch.uint8)
    for row, caption in zip(rows, captions, strict=True):
        text = torch.frombuffer(bytearray(caption.encode()[:width] or b"\0"), dtype=torch.uint8)
        row[: len(text)] = text
    return rows


class ByteText(nn.Module):
    """Captions to one token a byte: an embedding of the byte and of its place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.byte = nn.Embedding(256, dim)
        self.place = nn.Embedding(CAPTION_BYTES, dim)
        nn.init.normal_(self.byte.weight, std=0.5)
        nn.init.normal_(self.place.weight, std=0.5)

    def embed(self, rows: UInt8[Tensor, "k s"]) -> Float[Tensor, "k s c"]:
        """Tokens of bytes; those past the end of a caption are zero, as the released text encoder leaves them."""
        tokens = self.byte(rows.long()) + self.place.weight[: rows.shape[1]]
        return tokens * (rows != END)[..., None]

    def forward(self, captions: Sequence[str]) -> Float[Tensor, "k s c"]:
        """Tokens of captions."""
        return self.embed(caption_bytes(captions).to(self.byte.weight.device))


class FrameTokens(nn.Module):
    """A frame to one token for each 32 x 32 pixels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, dim, 8, stride=8), nn.GELU(), nn.Conv2d(dim, dim, 4, stride=4))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Tokens of frames, sRGB in [-1, 1]."""
        tokens: Tensor = self.layers(image.to(next(self.parameters())))
        return tokens.flatten(2).transpose(1, 2)
