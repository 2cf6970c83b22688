"""Hyper-parameters of the training loop, and what it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.training.metrics import Row
from lyra_core.training.precision import PrecisionMode


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long and how fast a network is trained; what decides where is a TrainingRun (run.py).

    Attributes:
        max_steps: end after so many steps; None for no limit.
        max_seconds: end after so much training time, earlier runs counted in; None for no limit.
        learning_rate: at the top of the schedule.
        final_rate: share of it at the end of the cosine.
        warmup_steps: linear warm-up.
        betas: of AdamW.
        weight_decay: of AdamW, on matrices and kernels only.
        clip_norm: largest norm of the gradient.
        ema_decay: of the weights that are kept; lower at the start.
        precision: "float32"; "autocast" to bf16; or "copy": gradients of a bf16 copy, as inference computes, move
            float32 weights.
        log_every: steps between lines of the log.
        evaluate_every_s: seconds between evaluations (0: at the end only).
        checkpoint_every_s: seconds between checkpoints (0: at the end only).

    Raises:
        ConfigError: neither limit is given, or one is not positive.
    """

    max_steps: int | None = None
    max_seconds: float | int | None = None
    learning_rate: float = 1.5e-3
    final_rate: float = 0.01
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: PrecisionMode = "float32"
    log_every: int = 20
    evaluate_every_s: float | int = 0
    checkpoint_every_s: float | int = 0

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.max_steps, self.max_seconds) if limit is not None]
        if not limits or any(limit <= 0 for limit in limits):
            raise ConfigError(
                f"training needs a positive max_steps or max_seconds, found {self.max_steps} and {self.max_seconds}"
            )

    def progress(self, step: int, elapsed_s: float) -> float:
        """Share of the run that is over, by whichever limit is nearer."""
        shares = [0.0]
        if self.max_steps is not None:
            shares.append(step / self.max_steps)
        if self.max_seconds is not None:
            shares.append(elapsed_s / self.max_seconds)
        return min(1.0, max(shares))

    def rate(self, step: int, elapsed_s: float) -> float:
        """The learning rate of a step."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cosine = 0.5 + 0.5 * math.cos(math.pi * self.progress(step, elapsed_s))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)


@dataclass(slots=True, kw_only=True)
class LoopResult:
    """What a training leaves behind.

    Attributes:
        step: steps done, earlier runs counted in.
        elapsed_s: seconds of training, likewise.
        ema: the averaged weights, by name.
        metrics: one row a log line and evaluation.
    """

    step: int = 0
    elapsed_s: float = 0.0
    ema: dict[str, Tensor] = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
