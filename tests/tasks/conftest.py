"""Small real seeds and a real pool around a model that misbehaves on request."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "models"


@pytest.fixture
def make_seeds(tmp_path):
    """Write small different photographs under the given names and return their folder."""

    def make(*names: str, folder: str = "seeds") -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name in names:
            pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target / name)
        return target

    return make


@pytest.fixture
def fault_recipe() -> Recipe:
    """A recipe around the misbehaving model that stores next to nothing."""
    return Recipe(
        name="fault",
        description="for tests",
        model="fault_model:load",
        width=64,
        height=48,
        artifacts=("ply",),
        quality_views=0,
    )


@pytest.fixture
def model_path(monkeypatch) -> str:
    """Makes tests/models importable here; the value goes to workers."""
    monkeypatch.syspath_prepend(str(MODELS))
    return str(MODELS)
