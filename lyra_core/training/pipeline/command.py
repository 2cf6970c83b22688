"""`python -m lyra_core.training mini`: the whole recipe of the mini model over the GPUs of one machine."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from lyra_core.errors import ConfigError
from lyra_core.factory import factory_root
from lyra_core.mini.manifest import mini_digest
from lyra_core.procedural.workers import MAX_WORKERS, SPARE_CORES
from lyra_core.training.pipeline.mini_steps import MiniChoices, mini_steps
from lyra_core.training.pipeline.scheduler import Pipeline, PipelineConfig
from lyra_core.training.pipeline.step import Step

EXAMPLES = """examples:
  lyra train mini --out runs/mini                                       from nothing, on all GPUs of the machine
  lyra train mini --out runs/mini --start-from lyra_core/mini/weights   going on from packed weights, shorter
  lyra train mini --out runs/mini --pause-after 25 --sync-to kept       the same command again goes on
  lyra train mini --out runs/mini --only depth pack 'table*'            some steps, from results of the others
  lyra train mini --out runs/toy --toy --device cpu                     a try of all steps without a GPU
"""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_pipeline(commands: Any) -> None:  # argparse's type of it is private
    """Declare the command `mini`."""
    mini = commands.add_parser(
        "mini",
        help="train the whole mini model: all steps over the GPUs of one machine, resumable",
        description="Runs all steps of the mini model as processes, each as soon as its inputs and GPUs are there. "
        "The same command again skips what is finished and goes on with what is not.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mini.add_argument("--out", type=Path, required=True, help="folder for all steps, logs and weights")
    mini.add_argument("--gpus", type=int, help="GPUs to use (default: all; with --device cpu places for processes, 1)")
    mini.add_argument("--minutes-scale", type=float, default=1.0, help="factor of all training times (default: 1)")
    mini.add_argument("--pause-after", type=float, help="minutes after which this call pauses; repeat it to resume")
    mini.add_argument("--start-from", type=Path, help="folder of packed weights to begin with (default: from nothing)")
    mini.add_argument("--only", nargs="+", metavar="STEP", help="steps to run, also as patterns (default: all)")
    mini.add_argument("--sync-to", type=Path, help="folder that receives what each step leaves, as soon as it ends")
    mini.add_argument("--part-mib", type=float, default=15.0, help="larger files arrive there in parts (default: 15)")
    mini.add_argument("--views", type=Path, help="folder of camera paths, made where missing (default: OUT/paths)")
    mini.add_argument("--photographs", type=Path, help="folder of photographs (default: those of this project)")
    mini.add_argument(
        "--student-weight", type=float, default=0.4, help="of the student in what is packed (default: 0.4)"
    )
    mini.add_argument("--workers", type=int, help="processes of a step that prepare scenes (default: by its GPUs)")
    mini.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    mini.add_argument("--toy", action="store_true", help="tiny steps of seconds, to try the command on a CPU")
    mini.set_defaults(run=run_pipeline)


def run_pipeline(options: argparse.Namespace, log: logging.Logger) -> int:
    """Run the steps that the options ask for; returns the exit status.

    Raises:
        ConfigError: options that fit neither each other nor the machine.
        WeightsError: weights to begin with that cannot be read.
    """
    steps, config = planned(options)
    pipeline = Pipeline(steps, options.out, config, log.info)
    with stopping(pipeline):
        return pipeline.run()


def planned(options: argparse.Namespace) -> tuple[tuple[Step, ...], PipelineConfig]:
    """Steps and how they are run; errors as those of run_pipeline.

    Raises:
        ConfigError: options that do not belong together or are out of range.
    """
    if options.toy and options.start_from is not None:
        raise ConfigError("toy networks begin from nothing: leave out --start-from or --toy")
    if options.start_from is not None and options.start_from.resolve() == (options.out / "weights").resolve():
        raise ConfigError(
            f"{options.start_from} is where the new weights go; begin with a copy, or choose another --out"
        )
    if options.minutes_scale <= 0 or options.part_mib <= 0 or not 0 <= options.student_weight <= 1:
        raise ConfigError("--minutes-scale and --part-mib are positive and --student-weight lies in 0 to 1")
    root = factory_root()
    choices = MiniChoices(
        has_start=options.start_from is not None,
        minutes_scale=options.minutes_scale,
        is_toy=options.toy,
        device=options.device,
        student_weight=options.student_weight,
        has_table=not options.toy,  # which loads networks of the shipped widths
    )
    steps = mini_steps(choices)
    gpus = gpu_names(options.gpus, options.device)
    cores = os.cpu_count() or 1
    workers = options.workers if options.workers is not None else min(MAX_WORKERS, (cores - SPARE_CORES) // len(gpus))
    places = {
        "views": options.views or options.out / "paths",
        "photographs": options.photographs or root / "examples",
    }
    digests = {}
    if options.start_from is not None:
        digests["start"] = mini_digest(options.start_from)
        places["start"] = options.start_from
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": import_path()}
    # threads of processes side by side would wait for each other's cores
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // len(gpus))))
    return steps, PipelineConfig(
        gpus=gpus,
        is_spread=options.device != "cpu",
        places={name: str(place.resolve()) for name, place in places.items()} | {"workers": str(max(0, workers))},
        digests=digests,
        environment=environment,
        folder=root,
        pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
        reserve_s=15.0 if options.toy else 90.0,
        least_s=2.0 if options.toy else 60.0,
        sync_to=None if options.sync_to is None else options.sync_to.resolve(),
        part_bytes=round(options.part_mib * 2**20),
        chosen=None if options.only is None else matching(options.only, [step.name for step in steps]),
    )


def matching(patterns: list[str], names: list[str]) -> tuple[str, ...]:
    """Names that a pattern matches, in their order.

    Raises:
        ConfigError: a pattern that matches none.
    """
    idle = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]
    if idle:
        raise ConfigError(f"steps are {', '.join(names)}; none is {', '.join(idle)}")
    return tuple(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def gpu_names(count: int | None, device: str) -> tuple[str, ...]:
    """GPUs as CUDA_VISIBLE_DEVICES names them; on a CPU so many places for processes.

    Raises:
        ConfigError: more than the machine has, or none.
    """
    if device == "cpu":
        there = [str(number) for number in range(1 if count is None else count)]
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        there = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    else:
        there = [str(number) for number in range(torch.cuda.device_count())]
    wanted = len(there) if count is None else count
    if not 1 <= wanted <= len(there):
        raise ConfigError(f"wanted {wanted} GPUs, found {len(there)}; --toy --device cpu tries the steps without one")
    return tuple(there[:wanted])


def import_path() -> str:
    """PYTHONPATH with which processes find this very lyra_core, wherever they run."""
    here = str(Path(__file__).resolve().parents[3])
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([here, *(entry for entry in others if entry)])


@contextlib.contextmanager
def stopping(pipeline: Pipeline) -> Iterator[None]:
    """End the pipeline in order, its processes first, when this process is asked to end."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        # whoever started this with nohup wants it to outlive the terminal
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda found, _: pipeline.stop(found))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
