"""The golden tests know no width, size or camera by heart: they accept a folder of other ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_another_folder_of_the_same_form(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LYRA_GOLDEN_DIR": str(tmp_path / "other")}
    writer = Path(__file__).with_name("other_golden.py")
    subprocess.run([sys.executable, writer, tmp_path / "other"], env=environment, cwd=ROOT, check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-k", "golden and not another", "-p", "no:cacheprovider"]
    places = [
        "tests/lyra_core/video",
        "tests/lyra_core/geometry",
        "tests/lyra_core/weights",
        "tests/lyra_core/gaussians",
    ]
    finished = subprocess.run(
        [*command, *places], env=environment, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout[-4000:]
