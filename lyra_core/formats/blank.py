"""Photographs of nothing: all black, all white, transparent, one colour. Every measure calls their worlds perfect."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra_core.errors import SeedError

# The side of the blocks whose means are compared: noise of a sensor averages out in them.
BLOCK_PX = 8
# Of 255. Dense fog has some 15 between its lightest and darkest places and one lamp in the night more; the noise of a
# covered lens (a deviation of 3) has 3, and a white wall out of focus less than 6 says nothing about depth.
MIN_RANGE = 6.0


def require_content(image: UInt8[Tensor, "h w 3"], name: str) -> None:
    """Refuse an image in which there is nothing to see.

    Args:
        image: sRGB.
        name: where it came from, for the error.

    Raises:
        SeedError: no colour channel's mean over 8x8 blocks differs by 6 of 255 anywhere.
    """
    extent = content_range(image)
    if extent < MIN_RANGE:
        color = ", ".join(str(round(v)) for v in image.double().mean((0, 1)).tolist())
        raise SeedError(
            f"{name} holds no picture: everywhere about the colour ({color}), its lightest and darkest places differ "
            f"by {extent:.1f} of 255, wanted {MIN_RANGE:.0f}; use a photograph with something in it"
        )


def content_range(image: UInt8[Tensor, "h w 3"]) -> float:
    """The largest difference between block means in any colour channel, 0 to 255."""
    channels = image.permute(2, 0, 1).to(torch.float64)[None]
    block = min(BLOCK_PX, *image.shape[:2])
    means = torch.nn.functional.avg_pool2d(channels, block, ceil_mode=True)[0].flatten(1)
    return float((means.amax(1) - means.amin(1)).max())
