"""What every training command does with its process: logging, torch's settings, workers, the group, the summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lyra_core.procedural.workers import preparing
from lyra_core.train_commands.options import RunOptions
from lyra_core.training.data_parallel import joined
from lyra_core.training.loop_config import LoopResult
from lyra_core.training.run import TrainingRun

log = logging.getLogger("lyra_core.training")
SUMMARY = "summary.json"


def tune_kernels() -> None:
    """Let cuDNN try its kernels; not for what is measured, whose kernels are those that users get."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 2


@contextmanager
def training_run(options: RunOptions) -> Iterator[TrainingRun]:
    """The run that options ask for, its workers and processes joined for the time of a `with` block."""
    tune_kernels()
    # workers first: they are forked, which must precede everything that starts threads
    with preparing(0 if options.debug else options.workers) as workers, joined(options.device) as (replicas, device):
        log.info("process %d of %d on %s", replicas.rank, replicas.count, device)
        yield TrainingRun(
            out_dir=options.out,
            resume_from=options.resume,
            start_from=options.start_from,
            device=device,
            replicas=replicas,
            workers=workers,
            report=log.info,
            pause_after_s=None if options.pause_after is None else 60 * options.pause_after,
            pause_at=options.pause_at,
        )


def write_summary(options: RunOptions, run: TrainingRun, result: LoopResult, *, samples_per_step: int) -> None:
    """Write what a run cost and came to, for the manifest of packed weights; in the first process only."""
    if not run.replicas.is_first:
        return
    samples = result.step * samples_per_step * run.replicas.count
    summary = {
        "steps": result.step,
        "seconds": round(result.elapsed_s, 1),
        "gpus": run.replicas.count,
        "samples": samples,
        "seed": options.seed,
        "scenes": options.scenes,
        "last": {key: round(value, 4) for row in result.metrics[-4:] for key, value in row.items()},
    }
    (run.out_dir / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    log.info("samples per second %.1f; %s", samples / max(result.elapsed_s, 1e-9), summary)
