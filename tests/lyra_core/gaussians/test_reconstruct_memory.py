import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path.insert(0, "benchmarks")
import json
from reconstruct_memory import compare
print(json.dumps(compare((161, 961))))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_video():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    short, long = json.loads(done.stdout.splitlines()[-1])
    assert (short["num_frames"], long["num_frames"]) == (161, 961)
    assert long["num_chunks"] > 4 * short["num_chunks"]
    assert long["peak_mib"] < 1.1 * short["peak_mib"]
