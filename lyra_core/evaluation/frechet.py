"""Frechet distance of features: how far what was made is, as a whole, from what is true.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", section 3, of other features: values are named
after the network (EfficientNet-Lite1) and are not FID. Each position of a feature map is a sample, as in the spatial
variant of Nash et al. 2021, "Generating Images with Sparse Representations", section 5.1; so masks can say which
positions count, and a few dozen scenes are enough for a covariance.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def masked_rows(
    features: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b h2 w2"], share: float = 0.75
) -> Float[Tensor, "n c"]:
    """Features of positions that lie in a mask of pixels by at least a share of their stride's square."""
    size = (int(features.shape[-2]), int(features.shape[-1]))
    covered = functional.interpolate(mask[:, None].float(), size=size, mode="area")[:, 0]
    return features.permute(0, 2, 3, 1)[covered >= share]


def frechet_distance(found: Float[Tensor, "n c"], truth: Float[Tensor, "m c"]) -> float:
    """Squared distance of means and covariances of two sets of features; NaN where one has fewer rows than channels."""
    if min(len(found), len(truth)) <= found.shape[1]:
        return float("nan")
    a, b = found.double().cpu(), truth.double().cpu()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    one, other = torch.cov(a.T), torch.cov(b.T)
    root = _root(one)
    # tr((A B)^1/2) by the symmetric form, whose eigenvalues are real
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    return float(apart + one.trace() + other.trace() - 2 * cross)


def _root(matrix: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
