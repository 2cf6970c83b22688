"""Frames to what Depth Anything 3 was trained on: longest side fixed, sides multiples of 14,
ImageNet colours.

The two resizing steps and their filters are those of the release: first the longest side to the
wanted size, then each side to the nearest multiple of 14; area averaging to shrink, bicubic (a =
-0.75) to enlarge, 8 bits in between. Shape legend: t frames, h w pixels of the input, p q pixels of
the output.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import FrameError
from lyra_core.gaussians.depth_anything.config import PATCH

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PROCESS_SIZE = 504
FRAMES_PER_SLICE = 8


def bounded_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width with the longest side as wanted and the aspect kept, rounded to pixels."""
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def network_size(height: int, width: int, longest: int = PROCESS_SIZE) -> tuple[int, int]:
    """Height and width the network works at; ties between multiples of 14 go up.

    Raises:
        FrameError: a side that vanishes.
    """
    if height < 1 or width < 1 or longest < PATCH:
        raise FrameError(
            f"the network needs frames of at least one pixel and a size of at least {PATCH}, found "
            f"{width}x{height} at {longest}"
        )
    rows, cols = (int(side / PATCH + 0.5) for side in bounded_size(height, width, longest))
    return max(1, rows) * PATCH, max(1, cols) * PATCH


def preprocess(frames: UInt8[Tensor, "t h w 3"], longest: int = PROCESS_SIZE) -> Float[Tensor, "t 3 p q"]:
    """Resize and normalise, on the frames' device.

    Args:
        frames: sRGB. [t h w 3]
        longest: the longest side before rounding to multiples of 14, pixels.

    Returns:
        normalised colour. [t 3 p q]

    Raises:
        FrameError: no frame.
    """
    if frames.shape[0] < 1:
        raise FrameError("depth estimation needs at least one frame, found none")
    height, width = frames.shape[1:3]
    sizes = [bounded_size(height, width, longest), network_size(height, width, longest)]
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=frames.device)[:, None, None]
    out = []
    for part in frames.split(FRAMES_PER_SLICE):
        x = rearrange(part, "t h w c -> t c h w").float()
        for size in sizes:
            x = resize(x, size).round().clamp(0, 255)
        out.append((x / 255.0 - mean) / std)
    return torch.cat(out)


def resize(images: Float[Tensor, "t c h w"], size: tuple[int, int]) -> Float[Tensor, "t c p q"]:
    """Bicubic if a side grows, else averages over the exact area each output pixel covers."""
    height, width = images.shape[2:]
    if size == (height, width):
        return images
    if size[0] > height or size[1] > width:
        return functional.interpolate(images, size=size, mode="bicubic", align_corners=False)
    rows, cols = (area_weights(n, m).to(images) for n, m in ((height, size[0]), (width, size[1])))
    return torch.einsum("ph,tchw,qw->tcpq", rows, images, cols)


def area_weights(size: int, out: int) -> Float[Tensor, "out size"]:
    """Each output pixel's share of each input pixel, fractional borders included; rows sum to 1."""
    edges = torch.arange(out + 1, dtype=torch.float64) * size / out
    left = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], left + 1.0) - torch.maximum(edges[:-1, None], left)
    return (overlap.clamp_min(0.0) * out / size).float()
