"""A leader with followers is, for its callers, the network it leads."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("share_processes.py")
REPOSITORY = Path(__file__).resolve().parents[4]


def test_a_team_of_two_computes_what_one_does_and_ends(tmp_path):
    out = tmp_path / "errors.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "team", str(out)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())
    assert found.pop("ended") == [0]
    assert "one chunk at a time" in found.pop("foreign")
    assert found.keys() == {"plain 0", "guided 0", "plain 1", "guided 1"}
    assert max(found.values()) < 1e-5, found
