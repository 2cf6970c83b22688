"""Small real seeds and a real pool around a model that misbehaves on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "models"


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
