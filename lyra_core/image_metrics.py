"""How alike two images are: PSNR and SSIM of colours from 0 to 1.

Legend: b clips, t frames, h w pixels, c channels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import FrameError

MAX_PSNR_DB = 99.0
"""Of equal images: a catalog has no infinity."""
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr_db(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], *, max_db: float = MAX_PSNR_DB) -> float:
    """Peak signal-to-noise ratio in decibels over all values, computed in float64.

    Args:
        a: values.
        b: values to compare with.
        max_db: the result for equal images.

    Raises:
        FrameError: different shapes.
    """
    _require_same(a, b)
    error = float((a.double() - b.double()).square().mean())
    return min(max_db, -10.0 * math.log10(error)) if error > 0 else max_db


def psnr_each_db(a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """The ratio of each clip of a batch, in the precision and on the device of the clips; `a` is cut to [0, 1]."""
    return decibels((a.clamp(0, 1) - b).square().flatten(1).mean(1))


def decibels(square_error: Float[Tensor, "*shape"], max_db: float = MAX_PSNR_DB) -> Float[Tensor, "*shape"]:
    """Mean squared errors of values from 0 to 1 as peak signal-to-noise ratios."""
    return -10 * torch.log10(square_error.clamp(min=10 ** (-max_db / 10)))


def ssim(a: Float[Tensor, "t h w c"], b: Float[Tensor, "t h w c"]) -> float:
    """Mean structural similarity (Wang et al. 2004: 11x11 Gaussian of 1.5), over windows inside the images only.

    Raises:
        FrameError: different shapes, or images smaller than the window.
    """
    _require_same(a, b)
    if min(a.shape[1:3]) < WINDOW:
        raise FrameError(f"ssim needs images of at least {WINDOW}x{WINDOW} pixels, found {a.shape[2]}x{a.shape[1]}")
    x, y = (p.permute(0, 3, 1, 2).flatten(0, 1)[:, None].double() for p in (a, b))
    taps = _window(x).tolist()

    def blur(image: Tensor) -> Tensor:
        # Shifted sums: a convolution of one channel is five times slower on a CPU.
        for dim in (-1, -2):
            inner = image.shape[dim] - WINDOW + 1
            image = sum(tap * image.narrow(dim, k, inner) for k, tap in enumerate(taps))
        return image

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x.square()
    var_y = blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    structure = (2 * covariance + C2) / (var_x + var_y + C2)
    return float((luminance * structure).double().mean())


def differentiable_ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
    """Structural similarity as a term of a loss: in the precision of the images, up to their borders.

    Where the window hangs over a border, its weights inside still sum to one; a loss without these windows would leave
    the outermost five pixels free. `ssim` measures without them, as published values do.
    """
    line = _window(a)
    kernel = (line[:, None] * line)[None, None]

    def blur(x: Tensor) -> Tensor:
        return functional.conv2d(x, kernel, padding=WINDOW // 2)

    norm = blur(torch.ones(1, 1, *a.shape[:2], dtype=a.dtype, device=a.device))
    x, y = a.permute(2, 0, 1)[:, None], b.permute(2, 0, 1)[:, None]
    mean_x, mean_y = blur(x) / norm, blur(y) / norm
    var_x, var_y = blur(x * x) / norm - mean_x**2, blur(y * y) / norm - mean_y**2
    cov = blur(x * y) / norm - mean_x * mean_y
    score = (2 * mean_x * mean_y + C1) * (2 * cov + C2) / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
    return score.mean()


def _window(like: Tensor) -> Float[Tensor, " k"]:
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return taps / taps.sum()


def _require_same(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise FrameError(f"images to compare need equal shapes, found {tuple(a.shape)} and {tuple(b.shape)}")
