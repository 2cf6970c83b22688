"""The Frechet distance against its closed form, and which positions a mask takes."""

from __future__ import annotations

import math

import pytest
import torch

from lyra_core.evaluation.frechet import frechet_distance, masked_rows


def test_diagonal_gaussians_have_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20000, 3, generator=generator)
    rows = (rows - rows.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.T))).T  # exactly white
    other = rows * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([1.0, 0.0, 0.0])
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(other, rows) == pytest.approx(1 + 1 + 4, rel=1e-3)
    assert frechet_distance(rows, other) == pytest.approx(6, rel=1e-3)


def test_too_few_rows_say_nothing():
    assert math.isnan(frechet_distance(torch.rand(3, 4), torch.rand(50, 4)))


def test_positions_count_where_the_mask_covers_them():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, 4:] = True
    mask[:, :2, :4] = True  # half of the upper left position
    features = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert masked_rows(features, mask).flatten().tolist() == [1.0, 3.0]
    assert masked_rows(features, mask, share=0.5).flatten().tolist() == [0.0, 1.0, 3.0]
