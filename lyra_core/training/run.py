"""The one value that every trainer takes beside its hyper-parameters: where a run reads, writes and computes.

    result = train_vae(VaeTrainingConfig(...), TrainingRun(out_dir=Path("run"), device="cuda"))

What a configuration holds decides the weights that come out; what a run holds does not, apart from the weights it
begins with. A paused run that is resumed, on other devices or in another folder, is the same training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch

from lyra_core.errors import ConfigError
from lyra_core.training.data_parallel import ALONE, Replicas, share_number

Report = Callable[[str], None]


def silent(line: str) -> None:
    """The report of a run that nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One call of a trainer.

    Attributes:
        out_dir: folder that receives checkpoints, weights, metrics and pictures; created if missing.
        resume_from: a checkpoint of an earlier call to continue; None begins anew.
        start_from: EMA weights of another run to begin with, with a fresh optimiser; None for random ones.
        device: of this process.
        replicas: the processes that train together; the first one writes.
        workers: processes that prepare scenes and textures; None prepares them in this one.
        report: receives a line of text now and then, in the first process.
        pause_after_s: seconds of training in this call after which it stops, to be resumed; None trains to the end.
        pause_at: time.time() at which it stops likewise, however long the start-up took.

    Raises:
        ConfigError: a pause after no time.
    """

    out_dir: Path
    resume_from: Path | None = None
    start_from: Path | None = None
    device: str | torch.device = "cpu"
    replicas: Replicas = ALONE
    workers: Executor | None = None
    report: Report = silent
    pause_after_s: float | int | None = None
    pause_at: float | int | None = None

    def __post_init__(self) -> None:
        if self.pause_after_s is not None and self.pause_after_s <= 0:
            raise ConfigError(f"a run pauses after a positive number of seconds, found {self.pause_after_s}")

    def say(self, line: str) -> None:
        """Report a line, in the first process only."""
        if self.replicas.is_first:
            self.report(line)

    def must_pause(self, seconds: float) -> bool:
        """Whether the time of this call is over, by the first process's clock; all processes must ask.

        Args:
            seconds: of training in this call, the same number in all processes.
        """
        is_late = False
        if self.pause_at is not None:
            is_late = share_number(float(time.time() >= self.pause_at), self.device, self.replicas) > 0
        return is_late or (self.pause_after_s is not None and seconds >= self.pause_after_s)
