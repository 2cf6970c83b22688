"""A critic that looks through the eyes of an image network: frozen features, mixed at random, judged by small heads.

Sauer et al. 2021, "Projected GANs Converge Faster", sections 3.2 (projections that are drawn once and fixed, across
channels and across scales) and 3.3 (one head for each scale, hinge loss). Only the heads learn, so little data goes
far. Heads are convolutional: each position has a verdict of its own, as fits frames of any size.
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
