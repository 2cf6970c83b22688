"""The real command line, in processes of its own, with one Prefect server for all tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "models"


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@dataclass(frozen=True)
class Lyra:
    """Runs `lyra` as a user would."""

    environment: dict[str, str]
    folder: Path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", "from lyra_core._launch import main; main()", *map(str, arguments)],
            env={**self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, timeout: float = 240, **environment: str) -> Finished:
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Finished(process.returncode, out, err)


@pytest.fixture(scope="session")
def lyra_home(tmp_path_factory):
    """A home whose Prefect server is started by whoever needs it first and stopped at the end."""
    home = tmp_path_factory.mktemp("lyra-home")
    yield home
    from flows.server import stop_server

    stop_server(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def lyra(lyra_home, tmp_path) -> Lyra:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LYRA_", "PREFECT_", "RAY_"))}
    environment = {
        **kept,
        "LYRA_HOME": str(lyra_home),
        "LYRA_MODEL_PATH": str(MODELS),
        "PYTHONPATH": str(REPOSITORY),
    }
    return Lyra(environment, tmp_path)


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Two real photographs, small enough for a test."""
    target = tmp_path / "photographs"
    target.mkdir()
    for name in ("coffee_table.jpg", "launch_pad.jpg"):
        shutil.copy(REPOSITORY / "examples" / "seeds" / name, target)
    return target
