"""How different two pictures are: PSNR, and SSIM that can be differentiated."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr_db(picture: Float[Tensor, "*s"], reference: Float[Tensor, "*s"]) -> float:
    """Peak signal to noise ratio of values in 0..1; 120 for equal pictures."""
    error = float((picture.double() - reference.double()).square().mean())
    return -10.0 * math.log10(max(error, 1e-12))


def ssim(picture: Float[Tensor, "h w 3"], reference: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
    """Mean structural similarity (Wang et al. 2004) with a Gaussian window of 11 pixels, values in 0..1."""
    offsets = torch.arange(WINDOW, dtype=picture.dtype, device=picture.device) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    line = line / line.sum()
    kernel = (line[:, None] * line)[None, None]

    def blur(x: Tensor) -> Tensor:
        return functional.conv2d(x, kernel, padding=WINDOW // 2)

    # Where the window hangs over the border its weights still sum to one.
    norm = blur(torch.ones(1, 1, *picture.shape[:2], dtype=picture.dtype, device=picture.device))
    x, y = picture.permute(2, 0, 1)[:, None], reference.permute(2, 0, 1)[:, None]
    mean_x, mean_y = blur(x) / norm, blur(y) / norm
    var_x, var_y = blur(x * x) / norm - mean_x**2, blur(y * y) / norm - mean_y**2
    cov = blur(x * y) / norm - mean_x * mean_y
    score = (2 * mean_x * mean_y + C1) * (2 * cov + C2) / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
    return score.mean()
