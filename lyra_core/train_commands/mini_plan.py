"""What `lyra train mini` runs: the steps, and how they use this machine."""

from __future__ import annotations

import os
from fnmatch import fnmatch

from lyra_core.errors import ConfigError
from lyra_core.factory import factory_root
from lyra_core.mini.manifest import mini_digest
from lyra_core.procedural.workers import MAX_WORKERS, SPARE_CORES
from lyra_core.train_commands.mini_options import MiniOptions
from lyra_core.training.pipeline.machine import gpu_names, import_path
from lyra_core.training.pipeline.mini_steps import MiniChoices, mini_steps
from lyra_core.training.pipeline.scheduler import PipelineConfig
from lyra_core.training.pipeline.step import Step


def plan_pipeline(options: MiniOptions) -> tuple[tuple[Step, ...], PipelineConfig]:
    """The steps that options ask for, and how they are run.

    Raises:
        ConfigError: options that fit neither each other nor the machine.
        WeightsError: weights to begin with that cannot be read.
    """
    if options.debug and options.start_from is not None:
        raise ConfigError("tiny networks begin from nothing: leave out --start-from or --debug")
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
        is_debug=options.debug,
        device=options.device,
        student_weight=options.student_weight,
        has_table=not options.debug,  # which loads networks of the shipped widths
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
        reserve_s=15.0 if options.debug else 90.0,
        least_s=2.0 if options.debug else 60.0,
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
