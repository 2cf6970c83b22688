"""The scene behind the golden vectors of memory and conditioning: a wavy slope with a moving box and a hole."""

import importlib.util
from pathlib import Path

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


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are computed faster by one thread, and by far where other processes share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_world():
    """The module tiny_world.py beside this file."""
    spec = importlib.util.spec_from_file_location("tiny_world", Path(__file__).with_name("tiny_world.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
