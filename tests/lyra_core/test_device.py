"""Devices that are not there, told before anything is loaded."""

import pytest
import torch

from lyra_core.device import require_device
from lyra_core.errors import RecipeError
from lyra_core.world_models.load import load_model


def test_devices():
    require_device("cpu")
    count = torch.cuda.device_count()
    with pytest.raises(RecipeError, match=rf"device: wanted cuda:{count}, found (no|\d) NVIDIA GPUs? on this machine"):
        require_device(f"cuda:{count}")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x"])
def test_no_device(name):
    with pytest.raises(RecipeError, match=rf"device: wanted cpu, cuda or cuda:N, found '{name}'"):
        load_model("mini", device=name)
