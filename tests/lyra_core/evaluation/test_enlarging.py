"""Measures of enlarged frames where the answer is known: the photograph itself, and the photograph made soft."""

import torch

from lyra_core.evaluation.bench import SIZE
from lyra_core.evaluation.enlarging import crop_distances
from lyra_core.image_features import ImageFeatures
from lyra_core.mini.backward_warp import backward_warp
from lyra_core.mini.super_resolution import FACTOR, enlarged, enlarged_mask, reduced


def test_crops_of_the_photograph_itself_are_nearer_than_soft_ones():
    height, width = SIZE
    draw = torch.Generator().manual_seed(0)
    photograph = torch.rand(1, 3, FACTOR * height, FACTOR * width, generator=draw) * 2 - 1
    K = torch.tensor([[[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]]])
    pose = torch.eye(4)[None]
    warp = backward_warp(torch.full((1, height, width), 2.0), pose, K, pose, K)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        features = ImageFeatures("lite0", levels=2).eval()
        distances = crop_distances(
            features, photograph, {"itself": photograph, "soft": enlarged(reduced(photograph))}, warp
        )
    assert float(distances["itself"]) < 1e-6
    assert float(distances["soft"]) > 1e-5  # weights are random: distances are small


def test_a_mask_grows_with_its_pixels():
    mask = torch.tensor([[[True, False], [False, True]]])
    large = enlarged_mask(mask)
    assert large.shape == (1, 2 * FACTOR, 2 * FACTOR)
    assert torch.equal(large[:, ::FACTOR, ::FACTOR], mask)
    assert int(large.sum()) == 2 * FACTOR * FACTOR
