"""Every line of the mini model's table (table.py), measured on held-out scenes, with pictures.

measure_table(TableConfig(out=Path("pictures"), device="cuda"), print)
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lyra_core.errors import ConfigError
from lyra_core.evaluation.bench import Bench, BenchConfig
from lyra_core.evaluation.enlarging import enlarging
from lyra_core.evaluation.merge import store
from lyra_core.evaluation.splat_parts import depth_rows, gaussians_of_generated, novel, world
from lyra_core.evaluation.video_parts import autoencoder, drift, photographs, returning, rollout_depth
from lyra_core.mini.files import file_digest
from lyra_core.mini.manifest import read_components
from lyra_core.procedural.photographs import HELD_OUT_PHOTOGRAPHS
from lyra_core.procedural.workers import preparing

PARTS = ("vae", "returning", "depth", "gaussians", "drift", "photographs", "depth-table", "novel", "enlarging", "world")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConfig(BenchConfig):
    """What of the table is measured; on what, BenchConfig says.

    Attributes:
        result: folder for the numbers, one for each process; None for that of the pictures.
        drift_scenes: scenes of the six-chunk paths; None for all.
        splat_scenes: scenes of rows that make and render Gaussians.
        ablation: a network trained without self-augmented histories: a component or a weights.safetensors.
        teacher: what the few-step student learnt from, likewise.
        teacher_steps: of its sampler; 0 leaves it out, None is 16 on a GPU and 0 elsewhere.
        parts: of PARTS, in order.

    Raises:
        ConfigError: an unknown part.
    """

    result: Path | None = None
    drift_scenes: int | None = None
    splat_scenes: int = 8
    ablation: str | None = None
    teacher: str | None = None
    teacher_steps: int | None = None
    parts: tuple[str, ...] = PARTS

    def __post_init__(self) -> None:
        if unknown := set(self.parts) - set(PARTS):
            raise ConfigError(f"parts of the table are {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")


def measure_table(config: TableConfig, say: Callable[[str], None]) -> Path:
    """Every part, in order of what matters most; the file is written after each, so a run cut short has said it.

    Args:
        config: what is measured.
        say: receives lines of text.

    Returns:
        The result file.

    Raises:
        WeightsError: weights or results that cannot be read, or results of different weights.
    """
    folder = config.out if config.result is None else config.result
    many = config.teacher_steps
    if many is None:
        many = 16 if config.device.startswith("cuda") else 0
    config.out.mkdir(parents=True, exist_ok=True)
    with preparing() as workers, torch.no_grad():
        bench = Bench(config, workers, say)
        parts = {
            "vae": lambda: autoencoder(bench),
            "returning": lambda: returning(bench, config.teacher, many),
            "depth": lambda: rollout_depth(bench),
            "gaussians": lambda: gaussians_of_generated(bench, config.splat_scenes),
            "drift": lambda: drift(bench, config.ablation, config.teacher, many, config.drift_scenes),
            "photographs": lambda: photographs(bench),
            "depth-table": lambda: depth_rows(bench, config.splat_scenes),
            "novel": lambda: novel(bench, config.splat_scenes),
            "enlarging": lambda: enlarging(bench, config.splat_scenes),
            "world": lambda: world(bench),
        }
        for place, name in enumerate(config.parts, 1):
            say(f"part {name} ({place} of {len(config.parts)}) begins")
            begin = time.perf_counter()
            parts[name]()
            seconds = time.perf_counter() - begin
            bench.details[f"seconds of part {name}"] = round(seconds, 1)
            path = store(_results(bench, config), folder, config.out)
            say(f"part {name} ({place} of {len(config.parts)}) took {seconds:.1f} s")
    return path


def _results(bench: Bench, config: TableConfig) -> dict[str, Any]:
    """The table so far, with what it was measured of."""
    return {
        "weights": bench.digest,
        "components": {name: sorted(part.files.values()) for name, part in read_components(config.weights).items()},
        "twin": _identity(config.ablation),  # the name that result files have had from the beginning
        "teacher": _identity(config.teacher),
        "held_out_photographs": sorted(HELD_OUT_PHOTOGRAPHS),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "rows": list(bench.rows.values()),
        "details": bench.details,
    }


def _identity(weights: str | None) -> str | None:
    """A component's name, or the SHA-256 of a file: where it lay says nothing to others."""
    if weights is None or not Path(weights).is_file():
        return weights
    return file_digest(Path(weights))
