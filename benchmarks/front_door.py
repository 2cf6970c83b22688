"""The front door as a program uses it, without the factory: load_model(), generate, reconstruct; seconds of each.

    python benchmarks/front_door.py [--cores 2]

`cpu_s` is what all threads computed in both calls (waiting threads of a busy machine count too). Every warning is an
error. Kernels are compiled once, at installation or in the first call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ("coffee_table.jpg", "alpine_path.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    os.environ.setdefault("OMP_NUM_THREADS", str(options.cores))  # before torch counts the machine's cores
    sys.path.insert(0, str(REPOSITORY))
    warnings.simplefilter("error")
    print(json.dumps(measure(options)))


def measure(options: argparse.Namespace) -> dict[str, object]:
    from results import cpu_name

    load = os.getloadavg()
    start = time.perf_counter()
    import lyra_core

    model = lyra_core.load_model()
    loaded = time.perf_counter()
    calls = []
    for name in PHOTOGRAPHS:
        begin, begun_cpu = time.perf_counter(), time.process_time()
        clip = model.generate(REPOSITORY / "examples" / "seeds" / name, "dolly-in")
        filmed = time.perf_counter()
        gaussians = model.reconstruct(clip)
        lifted = time.perf_counter()
        calls.append(
            {
                "photograph": name,
                "frames": list(clip.frames.shape[:3]),
                "splats": len(gaussians),
                "generate_s": round(filmed - begin, 2),
                "reconstruct_s": round(lifted - filmed, 2),
                "cpu_s": round(time.process_time() - begun_cpu, 2),
            }
        )
    return {
        "cpu": cpu_name(),
        "cores": options.cores,
        "load_average_before": [round(x, 2) for x in load],
        "precision": model.provenance.precision,
        "load_s": round(loaded - start, 2),
        "calls": calls,
    }


if __name__ == "__main__":
    main()
