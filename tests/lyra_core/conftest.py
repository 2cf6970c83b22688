"""Where golden vectors are read from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY_GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def released_dir() -> Path:
    """Names and shapes of the released files: they belong to the full-size networks and to no folder of vectors."""
    return REPOSITORY_GOLDEN


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of golden vectors: LYRA_GOLDEN_DIR, or the vectors that travel with the tests."""
    return Path(os.environ.get("LYRA_GOLDEN_DIR", REPOSITORY_GOLDEN))
