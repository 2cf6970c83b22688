"""Every line of the mini model's table (lyra_core/weights/mini_table.py), measured on held-out scenes, with pictures.

    python benchmarks/mini.py --device cuda --views .training/table --out pictures \\
        --twin runs/twin/weights.safetensors --teacher runs/teacher/weights.safetensors     # 32 scenes
    python benchmarks/mini.py --device cpu --scenes 4 --out pictures                        # a few, on a laptop

    python benchmarks/mini.py --device cuda:1 --parts drift --result gpu1 --out gpu1        # side by side, one a GPU
    python benchmarks/mini.py --merge gpu0/mini-DATE.json gpu1/mini-DATE.json --out pictures

Parts may be measured on different machines: lines that a run does not measure are kept from the day's file where they
are of the same weights. "True depth" gives the model the scene's own depth of every frame, "estimated" is what is
shipped: the seed's depth from the image alone (one factor a scene takes its scale out: a user's path is laid out in
it), every chunk's by the depth network, aligned to what is remembered.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
from mini_bench import Bench
from mini_merge import merge, store
from mini_parts import autoencoder, drift, photographs, returning, rollout_depth
from mini_splats import depth_rows, gaussians_of_generated, novel, world
from results import RESULTS

from lyra_core.errors import WeightsError
from lyra_core.training.photographs import HELD_OUT_PHOTOGRAPHS
from lyra_core.training.workers import preparing
from lyra_core.weights.mini_files import MINI_FOLDER, file_digest
from lyra_core.weights.mini_manifest import read_components

PARTS = ("vae", "returning", "depth", "gaussians", "drift", "photographs", "depth-table", "novel", "world")


def main() -> None:
    """Every part, in order of what matters most; the file is written after each, so a run cut short has said it."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.merge:
        try:
            print(merge(options.merge, options.result, options.out))
        except WeightsError as error:
            raise SystemExit(str(error)) from error
        return
    with preparing() as workers, torch.no_grad():
        bench = Bench(options, workers)
        parts = {
            "vae": lambda: autoencoder(bench),
            "returning": lambda: returning(bench, options.teacher, options.many),
            "depth": lambda: rollout_depth(bench),
            "gaussians": lambda: gaussians_of_generated(bench, options.splat_scenes),
            "drift": lambda: drift(bench, options.twin, options.teacher, options.many, options.drift_scenes),
            "photographs": lambda: photographs(bench),
            "depth-table": lambda: depth_rows(bench, options.splat_scenes),
            "novel": lambda: novel(bench, options.splat_scenes),
            "world": lambda: world(bench),
        }
        for place, name in enumerate(options.parts, 1):
            print(f"part {name} ({place} of {len(options.parts)}) begins", flush=True)
            begin = time.perf_counter()
            parts[name]()
            seconds = time.perf_counter() - begin
            bench.details[f"seconds of part {name}"] = round(seconds, 1)
            path = save(bench, options)
            print(f"part {name} ({place} of {len(options.parts)}) took {seconds:.1f} s", flush=True)
    print(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scenes", type=int, default=32, help="scenes of all other rows")
    parser.add_argument("--drift-scenes", type=int, help="scenes of the six-chunk paths (default: all)")
    parser.add_argument("--splat-scenes", type=int, default=8, help="scenes of rows that lift and draw Gaussians")
    parser.add_argument("--weights", type=Path, default=MINI_FOLDER)
    parser.add_argument("--views", type=Path, help="folder that keeps the camera paths between runs")
    parser.add_argument("--twin", help="trained without self-augmented histories: a component or weights.safetensors")
    parser.add_argument("--teacher", help="what the few-step student learnt from: a component or weights.safetensors")
    parser.add_argument("--many", type=int, help="steps of the teacher; 0 for none (default: 16, on a CPU 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--result", type=Path, default=RESULTS, help="folder for the numbers, one for each process")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="measure nothing: make one of these results"
    )
    options = parser.parse_args()
    if options.many is None:
        options.many = 16 if options.device.startswith("cuda") else 0
    return options


def save(bench: Bench, options: argparse.Namespace) -> Path:
    """The table so far as JSON beside other benchmarks' results, and as Markdown beside the pictures."""
    found = {
        "weights": bench.digest,
        "components": {name: sorted(part.files.values()) for name, part in read_components(options.weights).items()},
        "twin": identified(options.twin),
        "teacher": identified(options.teacher),
        "held_out_photographs": sorted(HELD_OUT_PHOTOGRAPHS),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "rows": list(bench.rows.values()),
        "details": bench.details,
    }
    return store(found, options.result, options.out)


def identified(weights: str | None) -> str | None:
    """A component's name, or the SHA-256 of a file: where it lay says nothing to others."""
    if weights is None or not Path(weights).is_file():
        return weights
    return file_digest(Path(weights))


if __name__ == "__main__":
    main()
