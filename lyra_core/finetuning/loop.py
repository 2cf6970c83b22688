"""The loop of fine-tuning: AdamW at a low rate on parameters that may be spread over processes, with checkpoints.

    result = finetune(networks, loss_of, FinetuneConfig(steps=2000), TrainingRun(out_dir=Path("run")))

Unlike the loop of the small networks (loop.py) it keeps no averages and no second copy of the weights, which at full
size would cost more memory than the weights themselves.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lyra_core.errors import ConfigError, TrainingError
from lyra_core.finetuning.checkpoint import load_sharded, save_sharded
from lyra_core.finetuning.fsdp import whole_tensor
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.training.checkpoint import STATE
from lyra_core.training.data_parallel import average_gradients, share_number
from lyra_core.training.metrics import CURVE, Row, append_row, draw_curve, told
from lyra_core.training.precision import LossOf
from lyra_core.training.run import TrainingRun

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """How long and how fast; the defaults are those of the released training.

    Attributes:
        steps: of the whole run, those of an earlier part counted in.
        learning_rate: at the top.
        betas: of AdamW.
        weight_decay: of AdamW, on all parameters alike.
        warmup_steps: from a millionth of the rate up.
        decay_steps: steps in which the rate falls linearly to final_rate.
        final_rate: share of the rate.
        clip_norm: largest norm of the gradient.
        non_finite: what a gradient with NaN or infinity does: "raise" stops before it touches the weights; "zero"
            takes such values for 0 and goes on, as the released training did.
        log_every: steps between lines of the log.
        checkpoint_every: steps between checkpoints, the end is always one; None writes none.

    Raises:
        ConfigError: no steps, or a rate that is not positive.
    """

    steps: int
    learning_rate: float = 3e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-3
    warmup_steps: int = 100
    decay_steps: int = 400_000
    final_rate: float = 0.4
    clip_norm: float = 0.1
    non_finite: Literal["raise", "zero"] = "raise"
    log_every: int = 10
    checkpoint_every: int | None = 500

    def __post_init__(self) -> None:
        counts = (self.steps, self.log_every, self.decay_steps, self.checkpoint_every or 1)
        if min(counts) < 1 or self.learning_rate <= 0:
            raise ConfigError(
                "fine-tuning needs steps, log_every, decay_steps and checkpoint_every of at least 1 and a positive "
                f"learning_rate, found {counts} and {self.learning_rate}"
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup_steps:
            return self.learning_rate * (1e-6 + (0.99 - 1e-6) * step / self.warmup_steps)
        over = min(1.0, step / self.decay_steps)
        return self.learning_rate * (1 + (self.final_rate - 1) * over)


@dataclass(slots=True, kw_only=True)
class FinetuneResult:
    """What a run leaves behind besides its files.

    Attributes:
        step: steps done, earlier parts counted in.
        elapsed_s: seconds of training, likewise.
        metrics: one row a line of the log, of this part.
    """

    step: int = 0
    elapsed_s: float = 0.0
    metrics: list[Row] = field(default_factory=list)


def finetune(
    networks: ReleasedNetworks,
    loss_of: LossOf[ReleasedNetworks],
    config: FinetuneConfig,
    run: TrainingRun,
) -> FinetuneResult:
    """Train in place what requires gradients.

    Args:
        networks: on their device, spread over processes or not.
        loss_of: losses of a step by name; "loss" is minimised, its mean over processes is logged. Its data must follow
            from the step and the process alone, so that a resumed run meets the data an unbroken one would.
        config: how long and how fast.
        run: folder, processes and pauses; the networks are taken as they are, whatever `start_from` says.

    Raises:
        ConfigError: nothing is trained.
        TrainingError: a gradient is not finite; the weights and the last checkpoint are as before.
        WeightsError: the checkpoint to resume cannot be read or belongs to another model.
    """
    training = _Finetuning(networks, config, run)
    while not training.is_over:
        losses, norm = training.step(loss_of)
        if training.is_logged:
            training.log(losses, norm)
        if training.is_saved:
            training.save()
    if run.replicas.is_first:
        draw_curve(training.result.metrics, run.out_dir / CURVE)
    return training.result


class _Finetuning:
    """The state of a fine-tuning between steps."""

    def __init__(self, networks: ReleasedNetworks, config: FinetuneConfig, run: TrainingRun) -> None:
        self.networks, self.config, self.run = networks, config, run
        self.parameters = [p for p in networks.parameters() if p.requires_grad]
        if not self.parameters:
            raise ConfigError("nothing is left to train: every parameter is frozen")
        self.whole = [p for p in self.parameters if not isinstance(p, DTensor)]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.parameters[0].is_cuda,
        )
        self.result = FinetuneResult()
        if run.resume_from is not None:
            self.result.step, self.result.elapsed_s = load_sharded(run.resume_from, networks, self.optimizer)
        self.first_s, self.is_paused = self.result.elapsed_s, False
        if run.replicas.is_first:
            run.out_dir.mkdir(parents=True, exist_ok=True)
            state = json.dumps({"processes": run.replicas.count, "config": asdict(config)}, indent=1)
            (run.out_dir / STATE).write_text(state + "\n", encoding="utf-8")
        networks.train()
        self.optimizer.zero_grad(set_to_none=True)  # a run that stopped may have left some
        self.last = time.perf_counter()

    @property
    def is_last(self) -> bool:
        """Whether the last step of the whole training is done."""
        return self.result.step >= self.config.steps

    @property
    def is_over(self) -> bool:
        """Whether the training is finished or this call pauses."""
        return self.is_paused or self.is_last

    @property
    def is_logged(self) -> bool:
        """Whether the last step is one that a row is written of."""
        return self.result.step % self.config.log_every == 0 or self.result.step == 1 or self.is_last

    @property
    def is_saved(self) -> bool:
        """Whether a checkpoint is due; a call that pauses leaves one."""
        every = self.config.checkpoint_every
        return every is not None and (self.is_over or self.result.step % every == 0)

    def step(self, loss_of: LossOf[ReleasedNetworks]) -> tuple[dict[str, Tensor], float]:
        """Take a step; returns its losses and the norm of the gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.result.step)
        losses = loss_of(self.networks, self.result.step)
        losses["loss"].backward()
        if self.whole:
            average_gradients(self.whole, self.run.replicas)
        norm = _clipped(self.parameters, self.config, self.result.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.result.step += 1
        return losses, norm

    def log(self, losses: dict[str, Tensor], norm: float) -> None:
        """Write a row and see whether it is time to pause."""
        result, run = self.result, self.run
        row: Row = {name: mean_number(value) for name, value in losses.items()}
        now = time.perf_counter()
        result.elapsed_s = share_number(result.elapsed_s + now - self.last, run.device, run.replicas)
        self.last = now
        self.is_paused = run.must_pause(result.elapsed_s - self.first_s)
        row |= {"step": result.step, "rate": self.config.rate(result.step - 1), "gradient_norm": norm}
        row |= {"elapsed_s": result.elapsed_s}
        result.metrics.append(row)
        if run.replicas.is_first:
            append_row(row, run.out_dir)
        run.say(told(row))

    def save(self) -> None:
        """Write the checkpoint, which is not training time."""
        before = time.perf_counter()
        path = self.run.out_dir / CHECKPOINT
        save_sharded(path, self.networks, self.optimizer, self.result.step, self.result.elapsed_s)
        self.last += time.perf_counter() - before


def _clipped(parameters: Sequence[nn.Parameter], config: FinetuneConfig, step: int) -> float:
    """Shorten gradients to the allowed norm; returns the norm they had, over all processes."""
    if config.non_finite == "zero":
        for parameter in parameters:
            if parameter.grad is not None:
                local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
                torch.nan_to_num_(local, nan=0.0, posinf=0.0, neginf=0.0)
    norm = float(whole_tensor(nn.utils.clip_grad_norm_(parameters, config.clip_norm)))
    if not math.isfinite(norm):
        raise TrainingError(
            f"training diverged: the gradient of step {step} has norm {norm}; look for broken clips (lyra train "
            "check-data --decode), or resume from the last checkpoint with a lower rate"
        )
    return norm


@torch.no_grad()
def mean_number(value: Tensor) -> float:
    """The mean over processes of a number."""
    number = value.detach().double()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(number)
        number /= dist.get_world_size()
    return float(number)
