"""Two drivers make the same worlds at once: every stored file must be the one its row names.

    python benchmarks/racing_drivers.py --worlds 20 --recipe mini

Both run `lyra run --ray off` on the sample photographs into one folder, with different numbers of threads, so that the
same world differs by a bit between them. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEEDS = Path(__file__).resolve().parents[1] / "examples" / "seeds"
LYRA = [sys.executable, "-c", "from lyra_core._launch import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--out", help="a path or URL; default: a temporary folder")
    options = parser.parse_args()
    photographs = sorted(SEEDS.glob("*.jpg"))
    variants = math.ceil(options.worlds / len(photographs))
    count = math.ceil(options.worlds / variants)
    with tempfile.TemporaryDirectory(prefix="lyra-race-", ignore_cleanup_errors=True) as folder:
        out = options.out or f"{folder}/worlds"
        command = [*LYRA, "run", *map(str, photographs[:count]), "--out", out, "--recipe", options.recipe]
        command += ["--set", f"variants={variants}", "--ray", "off", "--json"]
        start = time.perf_counter()
        drivers = [
            subprocess.Popen(
                command,
                env={**os.environ, "LYRA_HOME": f"{folder}/home{index}", "OMP_NUM_THREADS": str(1 + index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for index in range(2)
        ]
        ends = [json.loads(driver.communicate()[0]) for driver in drivers]
        seconds = time.perf_counter() - start
        check = subprocess.run([*LYRA, "verify", out, "--json"], capture_output=True, text=True, check=False)
        status = subprocess.run([*LYRA, "status", out, "--json"], capture_output=True, text=True, check=True)
        for index in range(2):
            home = {**os.environ, "LYRA_HOME": f"{folder}/home{index}"}
            subprocess.run([*LYRA, "down"], env=home, capture_output=True, check=False)
        result = {
            "recipe": options.recipe,
            "asked": count * variants,
            "exist": json.loads(status.stdout)["worlds"],
            "made_by_each": [end["created"] for end in ends],
            "found_made_by_each": [end["existing"] for end in ends],
            "verify": json.loads(check.stdout),
            "seconds": round(seconds, 1),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
