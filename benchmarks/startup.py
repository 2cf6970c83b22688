"""How long a person waits before anything happens: importing the library, asking for help, planning nothing new.

    python benchmarks/startup.py [--out benchmarks/results]

Targets: `import lyra_core` 150 ms without torch, `lyra --help` 0.6 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from results import write_result

REPOSITORY = Path(__file__).resolve().parents[1]
ROUNDS = 7
LYRA = "from lyra_core._launch import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    arguments = parser.parse_args()
    bare = wall_s("pass")
    found = {
        "rounds": ROUNDS,
        "python_alone_s": bare,
        "import_lyra_core_s": round(wall_s("import lyra_core") - bare, 4),
        "import_loads_torch": "True" in output("import lyra_core, sys; print('torch' in sys.modules)"),
        "lyra_help_s": wall_s(LYRA, "--help"),
        "lyra_recipes_s": wall_s(LYRA, "recipes"),
        "lyra_run_help_s": wall_s(LYRA, "run", "--help"),
    }
    print(json.dumps(found, indent=2))
    write_result("startup", found, arguments.out)


def wall_s(code: str, *arguments: str) -> float:
    """The median of a few runs, after one that warms the disk's cache."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        output(code, *arguments)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds[1:]), 4)


def output(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
