"""The training loop: warm-up and cosine, bf16 autocast, EMA, curves, and a resume that continues bit for bit.

    result = train(model, loss_of, LoopConfig(max_steps=1000), TrainingRun(out_dir=Path("run")))

`loss_of(model, step)` draws its data from a generator made of the seed and the step (see step_generator), so that a
resumed run meets the data an unbroken one would. Two files matter afterwards: `full.pt` (weights, EMA, optimiser: to
resume) and `weights.safetensors` (EMA in bf16 with `state.json`: to use).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic

import torch
from torch import Tensor, nn

from lyra_core.errors import TrainingError
from lyra_core.training.checkpoint import resume_checkpoint, save_checkpoint
from lyra_core.training.data_parallel import average_gradients, share_number, share_tensors
from lyra_core.training.loop_config import LoopConfig, LoopResult
from lyra_core.training.metrics import CURVE, Row, append_row, draw_curve, told
from lyra_core.training.precision import LossOf, Model, Precision
from lyra_core.training.run import TrainingRun

Evaluate = Callable[[Model], Row]


def step_generator(seed: int, step: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator for the data of one step: a function of seed and step alone."""
    generator = torch.Generator(device)
    # odd multipliers spread neighbouring seeds and steps over the whole range of a generator's seed
    generator.manual_seed((seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) % 2**63)
    return generator


def train(
    model: Model,
    loss_of: LossOf[Model],
    config: LoopConfig,
    run: TrainingRun,
    evaluate: Evaluate[Model] | None = None,
) -> LoopResult:
    """Train a model in place; it ends up with the last weights, the result holds the averaged ones.

    Args:
        model: on its device, float32 parameters.
        loss_of: losses of a step by name; "loss" is minimised. Called with the model, or its bf16 copy.
        config: how long and how fast.
        run: folder, processes and pauses; the model is taken as it is, whatever `start_from` says.
        evaluate: measures of the model; called with the averaged weights in it, in the first process.

    Raises:
        TrainingError: a loss is not finite; the last checkpoint is left as it was.
        WeightsError: the checkpoint to resume cannot be read or belongs to another model.
    """
    run.out_dir.mkdir(parents=True, exist_ok=True)
    training = _Training(model, config, run, evaluate if run.replicas.is_first else None)
    while not training.is_over:
        losses, norm = training.step(loss_of)
        if training.is_logged:
            training.log(losses, norm)
            training.evaluate_and_save()
    return training.finished()


class _Clock:
    """Seconds of training: start-up, measuring and saving do not count."""

    def __init__(self, elapsed_s: float) -> None:
        self.restart(elapsed_s)

    def restart(self, elapsed_s: float) -> None:
        """Begin to count at `elapsed_s`."""
        self.start = time.perf_counter() - elapsed_s

    def read(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self.start

    @contextmanager
    def stopped(self) -> Iterator[float]:
        """Do not count what is done in a `with` block; gives the time.perf_counter() at which it begins."""
        begin = time.perf_counter()
        yield begin
        self.start += time.perf_counter() - begin


class _Training(Generic[Model]):
    """The state of a training between steps, alike in all processes that train together."""

    def __init__(self, model: Model, config: LoopConfig, run: TrainingRun, evaluate: Evaluate[Model] | None) -> None:
        self.model, self.config, self.run, self.evaluate = model, config, run, evaluate
        self.optimizer = _optimizer(model, config)
        self.result = LoopResult(ema={k: v.detach().clone() for k, v in model.state_dict().items()})
        if run.resume_from is not None:
            resume_checkpoint(run.resume_from, model, self.optimizer, self.result)
        share_tensors([*model.state_dict().values(), *self.result.ema.values()], run.replicas)
        model.train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.precision = Precision(model, config.precision)
        self.clock = _Clock(self.result.elapsed_s)
        self.last_save = self.last_evaluation = time.perf_counter()
        self.first_step, self.first_s = self.result.step, self.result.elapsed_s
        self.is_paused = False

    @property
    def is_over(self) -> bool:
        """Whether the training is finished or this call pauses."""
        return self.is_paused or self.config.progress(self.result.step, self.result.elapsed_s) >= 1

    @property
    def is_logged(self) -> bool:
        """Whether the last step is one that a row is written of."""
        return self.result.step % self.config.log_every == 0 or self.result.step == 1

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.config.rate(self.result.step, self.result.elapsed_s)

    def step(self, loss_of: LossOf[Model]) -> tuple[dict[str, Tensor], Tensor]:
        """Take a step; returns its losses and the norm of the gradient, not yet waited for."""
        result, self.last_lr = self.result, self.lr
        for group in self.optimizer.param_groups:
            group["lr"] = self.last_lr
        losses = self.precision.losses(loss_of, result.step)
        self.precision.backward(losses)
        average_gradients(self.parameters, self.run.replicas)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        result.step += 1
        if result.step == self.first_step + 1:
            # the first step compiles and warms up: start-up, not training
            float(losses["loss"].detach())
            self.clock.restart(result.elapsed_s)
        _average(self.model, result, self.config.ema_decay)
        return losses, norm

    def log(self, losses: dict[str, Tensor], norm: Tensor) -> None:
        """Write a row and see whether it is time to pause.

        Reading a loss waits for the device, so the clock below it is true; between these rows nothing waits.
        """
        result, run = self.result, self.run
        row: Row = {name: float(value.detach()) for name, value in losses.items()}
        _require_finite(row, result.step)
        row |= {"step": result.step, "rate": self.last_lr, "gradient_norm": float(norm)}
        result.elapsed_s = share_number(self.clock.read(), self.parameters[0].device, run.replicas)
        self.is_paused = run.must_pause(result.elapsed_s - self.first_s)
        row |= {"elapsed_s": result.elapsed_s, "steps_per_s": result.step / max(result.elapsed_s, 1e-9)}
        if run.replicas.is_first:
            self._record(row)
        if result.step % (10 * self.config.log_every) == 0 or result.step == 1:
            run.say(told(row))

    def evaluate_and_save(self) -> None:
        """Measure and write a checkpoint where that is due."""
        config = self.config
        with self.clock.stopped() as now:
            if 0 < config.evaluate_every_s <= now - self.last_evaluation and self.evaluate is not None:
                self._evaluate(self.evaluate)
                self.last_evaluation = time.perf_counter()
            if 0 < config.checkpoint_every_s <= now - self.last_save and self.run.replicas.is_first:
                self._save()
                self.last_save = time.perf_counter()

    def finished(self) -> LoopResult:
        """Measure and write what is left at the end."""
        if self.evaluate is not None:
            self._evaluate(self.evaluate)
        if self.run.replicas.is_first:
            self._save()
            draw_curve(self.result.metrics, self.run.out_dir / CURVE)
        return self.result

    def _record(self, row: Row) -> None:
        self.result.metrics.append(row)
        append_row(row, self.run.out_dir)

    def _evaluate(self, evaluate: Evaluate[Model]) -> None:
        model, result = self.model, self.result
        last = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(result.ema)
        model.eval()
        row = evaluate(model)
        model.load_state_dict(last)
        model.train()
        self.run.say(f"evaluation at step {result.step}: {told(row)}")
        self._record({"step": result.step, "elapsed_s": result.elapsed_s, **row})

    def _save(self) -> None:
        save_checkpoint(self.model, self.optimizer, self.result, self.config, self.run.out_dir)


def _optimizer(model: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    is_cuda = bool(parameters) and parameters[0].is_cuda
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=is_cuda)


def _require_finite(row: Row, step: int) -> None:
    if not all(math.isfinite(value) for value in row.values()):
        raise TrainingError(
            f"training diverged: step {step} has {row}; resume from the last checkpoint with a lower learning_rate"
        )


@torch.no_grad()
def _average(model: nn.Module, result: LoopResult, decay: float) -> None:
    """Exponential moving average with a warm-up, so that the first random weights are soon forgotten."""
    keep = min(decay, (1 + result.step) / (10 + result.step))
    state = model.state_dict()
    floats = [name for name, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([result.ema[name] for name in floats], [state[name] for name in floats], 1 - keep)
    for name in state.keys() - set(floats):
        result.ema[name].copy_(state[name])
