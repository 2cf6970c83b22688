"""Where golden vectors are read from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of golden vectors: LYRA_GOLDEN_DIR, or the vectors that travel with the tests."""
    return Path(os.environ.get("LYRA_GOLDEN_DIR", Path(__file__).resolve().parents[1] / "golden"))
