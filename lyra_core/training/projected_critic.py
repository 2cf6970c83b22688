"""A critic that looks through the eyes of an image network: frozen features, mixed at random, judged by small heads.

Sauer et al. 2021, "Projected GANs Converge Faster", sections 3.2 (projections that are drawn once and fixed, across
channels and across scales) and 3.3 (one head for each scale, hinge loss). Only the heads learn, so little data goes
far. Heads are convolutional: each position has a verdict of its own, as fits frames of any size. Truth and what was
made may first be changed alike at random (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN
Training").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticConfig:
    """Sizes of a projected critic.

    Attributes:
        mixed: channels of the random projection at the finest level; each coarser one has as many more.
        head: hidden channels of a head.
        seed: of the projections and of the heads' first weights.
    """

    mixed: int = 64
    head: int = 64
    seed: int = 0


class _Head(nn.Module):
    """Mixed features of a level to one verdict for each position."""

    def __init__(self, before: int, hidden: int) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(before, hidden, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(hidden, hidden, 3, padding=1))
        self.verdict = spectral_norm(nn.Conv2d(hidden, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Verdicts, high where features look true."""
        y = functional.leaky_relu(self.first(x), 0.2)
        y = functional.leaky_relu(self.second(y), 0.2)
        verdict: Tensor = self.verdict(y)
        return verdict


class ProjectedCritic(nn.Module):
    """Feature maps of several strides, finest first, to a map of verdicts for each."""

    def __init__(self, widths: Sequence[int], config: CriticConfig = CriticConfig()) -> None:
        """Projections and heads.

        Args:
            widths: channels of the feature maps, as of ImageFeatures.widths.
            config: sizes.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(config.seed)
            mixed = [config.mixed * (level + 1) for level in range(len(widths))]
            # across channels: a random 1x1 convolution; across scales: from coarse to fine, a random 3x3 convolution
            self.across_channels = nn.ModuleList(
                nn.Conv2d(width, after, 1, bias=False) for width, after in zip(widths, mixed, strict=True)
            )
            self.across_scales = nn.ModuleList(
                nn.Conv2d(coarse, fine, 3, padding=1, bias=False) for fine, coarse in pairwise(mixed)
            )
            for module in (*self.across_channels, *self.across_scales):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")  # type: ignore[arg-type]
                module.requires_grad_(requires_grad=False)
            self.heads = nn.ModuleList(_Head(width, config.head) for width in mixed)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Tensor]:
        """Verdicts of each level.

        Args:
            maps: of ImageFeatures, as many as there are widths.
        """
        mixed = [layer(x) for layer, x in zip(self.across_channels, maps, strict=True)]
        for level in reversed(range(len(mixed) - 1)):
            coarse = self.across_scales[level](mixed[level + 1])
            enlarged = functional.interpolate(
                coarse, size=mixed[level].shape[-2:], mode="bilinear", align_corners=False
            )
            # the mean of two of equal strength keeps it
            mixed[level] = (mixed[level] + enlarged) * 0.5**0.5
        return [head(x) for head, x in zip(self.heads, mixed, strict=True)]


def critic_hinge(true: Sequence[Tensor], made: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The critic's hinge loss, mean over levels (Lim and Ye 2017, "Geometric GAN", equation 9)."""
    losses = [
        functional.relu(1 - t.float()).mean() + functional.relu(1 + m.float()).mean()
        for t, m in zip(true, made, strict=True)
    ]
    return torch.stack(losses).mean()


def critic_verdict(made: Sequence[Tensor]) -> Float[Tensor, ""]:
    """What the maker minimises: minus the mean verdict of what it made, mean over levels."""
    return -torch.stack([m.float().mean() for m in made]).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Changes of a batch of images, drawn once, to be made to truth and made images alike.

    Attributes:
        brightness, saturation, contrast: [b 1 1 1]; added, and two factors.
        shift: rows and columns an image moves by; zeros come in. [b 2]
        cut: first row and column of a square of zeros. [b 2]
        cut_size: side of the square in pixels; 0 cuts nothing.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor
    cut: Tensor
    cut_size: int

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The images changed; differentiable."""
        x = images + self.brightness
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * self.saturation + grey
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * self.contrast + mean
        h, w = x.shape[-2:]
        rows = torch.arange(h, device=x.device)[None, :, None] + self.shift[:, 0, None, None]
        columns = torch.arange(w, device=x.device)[None, None, :] + self.shift[:, 1, None, None]
        is_inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
        at = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
        moved = x.flatten(2).gather(2, at.flatten(1)[:, None].expand(-1, x.shape[1], -1)).unflatten(2, (h, w))
        if self.cut_size:
            down = torch.arange(h, device=x.device)[None, :, None] - self.cut[:, 0, None, None]
            across = torch.arange(w, device=x.device)[None, None, :] - self.cut[:, 1, None, None]
            is_cut = (down >= 0) & (down < self.cut_size) & (across >= 0) & (across < self.cut_size)
            is_inside = is_inside & ~is_cut
        return moved * is_inside[:, None]


def draw_augmentation(
    shape: torch.Size | tuple[int, ...], generator: torch.Generator, *, cut_share: float = 0.25
) -> Augmentation:
    """Changes of colour, place and content for a batch.

    Args:
        shape: of the images, [b 3 h w].
        generator: on the images' device.
        cut_share: side of the cut square against the shorter side of the image.
    """
    b, _, h, w = shape
    device = generator.device

    def draw(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=device)

    limits = torch.tensor([h // 8, w // 8], device=device)
    side = round(cut_share * min(h, w))
    return Augmentation(
        brightness=draw(b, 1, 1, 1) * 0.4 - 0.2,
        saturation=draw(b, 1, 1, 1) * 2,
        contrast=draw(b, 1, 1, 1) + 0.5,
        shift=((draw(b, 2) * 2 - 1) * limits).round().long(),
        cut=(draw(b, 2) * torch.tensor([h - side, w - side], device=device)).long(),
        cut_size=side,
    )
