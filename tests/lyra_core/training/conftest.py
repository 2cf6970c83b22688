"""Small shared textures; one thread, since two spinning pools on a busy machine cost more than they give."""

import pytest
import torch

from lyra_core.training.atlas import build_atlas


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def atlas():
    return build_atlas("train", per_kind=1, size=32)
