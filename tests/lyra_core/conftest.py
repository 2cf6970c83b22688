"""Where recorded numbers of the reference implementation live."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return Path(os.environ.get("LYRA_GOLDEN_DIR", Path(__file__).resolve().parents[1] / "golden"))
