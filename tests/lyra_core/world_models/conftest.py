"""A folder of tiny weights in the form of the released one, and the model built from it."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

from lyra_core.formats.image import open_image
from lyra_core.world_models.lyra2 import load_lyra2

MODELS = Path(__file__).resolve().parents[2] / "models"
VIDEO = {"num_steps": 1, "guidance_scale": 2.0, "encoded_prefix": 2}
RECONSTRUCTION = {"tier": 1500, "color_passes": 1}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are computed faster by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_weights():
    """The module tests/models/tiny_weights.py."""
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    spec = importlib.util.spec_from_file_location("tiny_weights", MODELS / "tiny_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def weights(tiny_weights, tmp_path_factory) -> Path:
    """Converted sets; chunks of 8 frames."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        return tiny_weights.write_tiny_weights(tmp_path_factory.mktemp("tiny"), tiny_weights.SHORT)


@pytest.fixture(scope="session")
def load(weights):
    """load(video={...}, reconstruction={...}, device="cpu", weights=...) -> the tiny model of the released form."""

    def load(video=None, reconstruction=None, **options):
        return load_lyra2(
            **{"weights": weights, **options},
            video={**VIDEO, **(video or {})},
            reconstruction={**RECONSTRUCTION, **(reconstruction or {})},
        )

    return load


@pytest.fixture(scope="session")
def model(load):
    return load()


@pytest.fixture(scope="session")
def photo():
    """A seed of 64x48 whose file tells no focal length."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 4, 6, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (48, 64), mode="bilinear")[0]
    return open_image((image * 255).to(torch.uint8).permute(1, 2, 0), 64, 48)
