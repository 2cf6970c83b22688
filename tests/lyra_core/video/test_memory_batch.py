"""Retrieval of a batch is that of each memory alone."""

import pytest
import torch

from lyra_core.config.rollout import CORRECTED_MEMORY, MemoryConfig
from lyra_core.video.memory import SpatialMemory
from lyra_core.video.memory_batch import coverage, greedy_cover, retrieve

HEIGHT, WIDTH = 32, 48


def worlds(count, frames):
    """Cameras that slide and turn before random, partly unknown depth."""
    generator = torch.Generator().manual_seed(3)
    depth = 2 + 3 * torch.rand(count, frames, HEIGHT, WIDTH, generator=generator)
    depth[torch.rand(depth.shape, generator=generator) < 0.05] = 0
    w2c = torch.eye(4).repeat(count, frames + 2, 1, 1)
    angle = 0.3 * torch.randn(count, frames + 2, generator=generator)
    w2c[..., 0, 0], w2c[..., 0, 2], w2c[..., 2, 0], w2c[..., 2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    w2c[..., :3, 3] = 0.5 * torch.randn(count, frames + 2, 3, generator=generator)
    K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]).expand(count, frames + 2, 3, 3)
    return depth, w2c, K


@pytest.mark.parametrize("config", [CORRECTED_MEMORY, MemoryConfig()])
@pytest.mark.parametrize("frames", [1, 7])
def test_agrees_with_single_memories(config, frames):
    depth, w2c, K = worlds(3, frames)
    seen = coverage(depth, w2c[:, :frames], K[:, :frames], w2c[:, frames:], K[:, frames:], config)
    chosen, valid = retrieve(seen, config.num_retrieved, has_begun=frames > 1)
    for item in range(3):
        memory = SpatialMemory(HEIGHT, WIDTH, config)
        memory.add(range(frames), depth[item], w2c[item, :frames], K[item, :frames])
        wanted = memory.retrieve(w2c[item, frames:], K[item, frames:])
        assert tuple(chosen[item][valid[item]].tolist()) == wanted


def test_best_comes_first_ties_go_to_the_earlier_and_nothing_new_is_invalid():
    seen = torch.tensor([[[1, 1, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]], dtype=torch.bool)
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    chosen, found = greedy_cover(seen, nothing, nothing, 3)
    assert chosen[found].tolist() == [1, 0]
    assert found.tolist() == [[True, True, False]]
