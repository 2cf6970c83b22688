"""`lyra train table`: every line of the mini model's table (table.py), measured on held-out scenes, with pictures.

    lyra train table --device cuda --views .training/table --out pictures \\
        --ablation runs/ablation/weights.safetensors --teacher runs/teacher/weights.safetensors     # 32 scenes
    lyra train table --device cpu --scenes 4 --out pictures                        # a few, on a laptop

    lyra train table --device cuda:1 --parts drift --out gpu1                      # side by side, one per GPU
    lyra train table --merge gpu0/mini-DATE.json gpu1/mini-DATE.json --out pictures

Parts may be measured on different machines: lines that a run does not measure are kept from the day's file where they
are of the same weights. "True depth" gives the model the scene's own depth of every frame, "estimated" is what is
shipped: the seed's depth from the image alone (one factor per scene takes its scale out: a user's path is laid out in
it), every chunk's by the depth network, aligned to what is remembered.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lyra_core.evaluation.bench import Bench
from lyra_core.evaluation.merge import merge, store
from lyra_core.evaluation.splat_parts import depth_rows, gaussians_of_generated, novel, world
from lyra_core.evaluation.video_parts import autoencoder, drift, photographs, returning, rollout_depth
from lyra_core.mini.files import MINI_FOLDER, file_digest
from lyra_core.mini.manifest import read_components
from lyra_core.procedural.photographs import HELD_OUT_PHOTOGRAPHS
from lyra_core.procedural.workers import preparing

PARTS = ("vae", "returning", "depth", "gaussians", "drift", "photographs", "depth-table", "novel", "world")


def add_table(commands: Any) -> None:  # argparse's type of it is private
    """Declare the command `table`."""
    table = commands.add_parser(
        "table",
        help="measure packed weights on held-out scenes: the table of the model card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(table)
    table.set_defaults(run=measure_table)


def add_options(parser: argparse.ArgumentParser, result: Path | None = None) -> None:
    """Declare the options of the table; `result` is where the numbers go by default, None for beside the pictures."""
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scenes", type=int, default=32, help="scenes of all other rows")
    parser.add_argument("--drift-scenes", type=int, help="scenes of the six-chunk paths (default: all)")
    parser.add_argument("--splat-scenes", type=int, default=8, help="scenes of rows that make and render Gaussians")
    parser.add_argument("--weights", type=Path, default=MINI_FOLDER)
    parser.add_argument("--views", type=Path, help="folder that keeps the camera paths between runs")
    parser.add_argument(
        "--ablation", help="trained without self-augmented histories: a component or weights.safetensors"
    )
    parser.add_argument("--teacher", help="what the few-step student learnt from: a component or weights.safetensors")
    parser.add_argument("--feature-weights", type=Path, help="weights of EfficientNet-Lite1 (default: of its package)")
    parser.add_argument("--many", type=int, help="steps of the teacher; 0 for none (default: 16, on a CPU 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--result", type=Path, default=result, help="folder for the numbers, one for each process (default: --out)"
    )
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="measure nothing: make one of these results"
    )


def measure_table(options: argparse.Namespace, log: logging.Logger) -> None:
    """Measure the parts that the options ask for; errors as those of `measured`."""
    log.info("%s", measured(options, log.info))


def measured(options: argparse.Namespace, say: Callable[[str], None]) -> Path:
    """Every part, in order of what matters most; the file is written after each, so a run cut short has said it.

    Args:
        options: those of `add_options`.
        say: receives lines of text.

    Returns:
        The result file.

    Raises:
        WeightsError: weights or results that cannot be read, or results of different weights.
    """
    folder = options.out if options.result is None else options.result
    many = (16 if options.device.startswith("cuda") else 0) if options.many is None else options.many
    options.out.mkdir(parents=True, exist_ok=True)
    if options.merge:
        return merge(options.merge, folder, options.out)
    with preparing() as workers, torch.no_grad():
        bench = Bench(options, workers, say)
        parts = {
            "vae": lambda: autoencoder(bench),
            "returning": lambda: returning(bench, options.teacher, many),
            "depth": lambda: rollout_depth(bench),
            "gaussians": lambda: gaussians_of_generated(bench, options.splat_scenes),
            "drift": lambda: drift(bench, options.ablation, options.teacher, many, options.drift_scenes),
            "photographs": lambda: photographs(bench),
            "depth-table": lambda: depth_rows(bench, options.splat_scenes),
            "novel": lambda: novel(bench, options.splat_scenes),
            "world": lambda: world(bench),
        }
        for place, name in enumerate(options.parts, 1):
            say(f"part {name} ({place} of {len(options.parts)}) begins")
            begin = time.perf_counter()
            parts[name]()
            seconds = time.perf_counter() - begin
            bench.details[f"seconds of part {name}"] = round(seconds, 1)
            path = store(_found(bench, options), folder, options.out)
            say(f"part {name} ({place} of {len(options.parts)}) took {seconds:.1f} s")
    return path


def _found(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """The table so far, with what it was measured of."""
    return {
        "weights": bench.digest,
        "components": {name: sorted(part.files.values()) for name, part in read_components(options.weights).items()},
        "twin": _identified(options.ablation),  # the name that result files have had from the beginning
        "teacher": _identified(options.teacher),
        "held_out_photographs": sorted(HELD_OUT_PHOTOGRAPHS),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "rows": list(bench.rows.values()),
        "details": bench.details,
    }


def _identified(weights: str | None) -> str | None:
    """A component's name, or the SHA-256 of a file: where it lay says nothing to others."""
    if weights is None or not Path(weights).is_file():
        return weights
    return file_digest(Path(weights))
