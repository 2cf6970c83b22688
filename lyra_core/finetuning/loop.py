"""The loop of fine-tuning: AdamW at a low rate on parameters that may be spread over processes, with checkpoints.

    result = finetune(networks, loss_of, FinetuneConfig(steps=2000), out_dir=Path("run"))

Unlike the loop of the small networks (loop.py) it keeps no averages and no second copy of the weights, which at full
size would cost more memory than the weights themselves.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lyra_core.errors import ConfigError
from lyra_core.finetuning.checkpoint import load_sharded, save_sharded
from lyra_core.finetuning.fsdp import whole_tensor
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.training.data_parallel import ALONE, Replicas, average_gradients
from lyra_core.training.loop import CURVE, METRICS, STATE, LossOf, Row, draw_curve

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
    *,
    out_dir: Path,
    resume_from: Path | None = None,
    report: Callable[[str], None] | None = None,
    replicas: Replicas = ALONE,
) -> FinetuneResult:
    """Train in place what requires gradients.

    Args:
        networks: on their device, spread over processes or not.
        loss_of: losses of a step by name; "loss" is minimised, its mean over processes is logged. Its data must follow
            from the step and the process alone, so that a resumed run meets the data an unbroken one would.
        config: how long and how fast.
        out_dir: receives checkpoints, metrics and the curve.
        resume_from: a checkpoint to continue.
        report: receives a line of text now and then, in the first process.
        replicas: the processes that train together.

    Raises:
        ConfigError: nothing is trained, or a gradient is not finite; the weights and the last checkpoint are as before.
        WeightsError: the checkpoint to resume cannot be read or belongs to another model.
    """
    parameters = [p for p in networks.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError("nothing is left to train: every parameter is frozen")
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=parameters[0].is_cuda,
    )
    result = FinetuneResult()
    if resume_from is not None:
        result.step, result.elapsed_s = load_sharded(resume_from, networks, optimizer)
    if replicas.is_first:
        out_dir.mkdir(parents=True, exist_ok=True)
        state = json.dumps({"processes": replicas.count, "config": asdict(config)}, indent=1)
        (out_dir / STATE).write_text(state + "\n", encoding="utf-8")
    networks.train()
    optimizer.zero_grad(set_to_none=True)  # a run that stopped may have left some
    whole = [p for p in parameters if not isinstance(p, DTensor)]
    last = time.perf_counter()
    while result.step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = config.rate(result.step)
        losses = loss_of(networks, result.step)
        losses["loss"].backward()
        if whole:
            average_gradients(whole, replicas)
        norm = _clipped(parameters, config, result.step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        result.step += 1
        is_last = result.step == config.steps
        if result.step % config.log_every == 0 or result.step == 1 or is_last:
            row: Row = {name: mean_number(value) for name, value in losses.items()}
            now = time.perf_counter()
            result.elapsed_s, last = result.elapsed_s + now - last, now
            row |= {"step": result.step, "rate": config.rate(result.step - 1), "gradient_norm": norm}
            _record(row | {"elapsed_s": result.elapsed_s}, result, out_dir, replicas, report)
        if config.checkpoint_every is not None and (is_last or result.step % config.checkpoint_every == 0):
            before = time.perf_counter()
            save_sharded(out_dir / CHECKPOINT, networks, optimizer, result.step, result.elapsed_s)
            last += time.perf_counter() - before  # saving is not training time
    if replicas.is_first:
        draw_curve(result.metrics, out_dir / CURVE)
    return result


def _clipped(parameters: Sequence[nn.Parameter], config: FinetuneConfig, step: int) -> float:
    """Shorten gradients to the allowed norm; returns the norm they had, over all processes."""
    if config.non_finite == "zero":
        for parameter in parameters:
            if parameter.grad is not None:
                local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
                torch.nan_to_num_(local, nan=0.0, posinf=0.0, neginf=0.0)
    norm = float(whole_tensor(nn.utils.clip_grad_norm_(parameters, config.clip_norm)))
    if not math.isfinite(norm):
        raise ConfigError(
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


def _record(
    row: Row, result: FinetuneResult, out_dir: Path, replicas: Replicas, report: Callable[[str], None] | None
) -> None:
    result.metrics.append(row)
    if not replicas.is_first:
        return
    with (out_dir / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if report is not None:
        report(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
