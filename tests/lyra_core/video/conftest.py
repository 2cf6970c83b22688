"""The scene behind the golden vectors of memory and conditioning: a wavy slope with a moving box and a hole."""

import pytest
import torch
from torch import Tensor


def _depth_map(frame: int, height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    depth = 3 + 0.02 * x + 0.03 * y + 0.15 * torch.sin(0.3 * x + 0.1 * frame) * torch.cos(0.2 * y)
    left = 10 + (frame // 8) % 10
    depth[8:20, left : left + 14] = 1.8
    depth[0:3, 0:5] = 0
    return depth.float()


@pytest.fixture(scope="session")
def golden_depth():
    """Depth of some frames, [n h w]."""

    def build(frames, height: int, width: int) -> Tensor:
        return torch.stack([_depth_map(int(i), height, width) for i in frames])

    return build
