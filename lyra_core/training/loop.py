"""The training loop: warm-up and cosine, bf16 autocast, EMA, curves, and a resume that continues bit for bit.

    result = train(model, loss_of, LoopConfig(max_steps=1000), out_dir=Path("run"))

`loss_of(model, step)` draws its data from a generator made of the seed and the step (see step_generator), so that a
resumed run meets the data an unbroken one would. Two files matter afterwards: `full.pt` (weights, EMA, optimiser: to
resume) and `weights.safetensors` (EMA in bf16 with `state.json`: to use).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.extras import is_installed
from lyra_core.training.data_parallel import ALONE, Replicas, average_gradients, share_number, share_tensors
from lyra_core.weights.ema_weights import WEIGHTS, save_weights

FULL_CHECKPOINT = "full.pt"
STATE = "state.json"
METRICS = "metrics.jsonl"
CURVE = "curve.png"

Model = TypeVar("Model", bound=nn.Module)
LossOf = Callable[[Model, int], dict[str, Tensor]]
Number = float | int
Row = dict[str, Number]
Evaluate = Callable[[Model], Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long and how fast.

    Attributes:
        max_steps: end after so many steps; None for no limit.
        max_seconds: end after so much training time, earlier runs counted in; None for no limit.
        pause_after_s: stop, to be resumed, after so many seconds of this call; None runs to the end.
        pause_at: stop likewise at this time.time(), however long the start-up took.
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
    pause_after_s: float | int | None = None
    pause_at: float | int | None = None
    learning_rate: float = 1.5e-3
    final_rate: float = 0.01
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["float32", "autocast", "copy"] = "float32"
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
    """What a run leaves behind.

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


def step_generator(seed: int, step: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator for the data of one step: a function of seed and step alone."""
    generator = torch.Generator(device)
    # odd multipliers spread neighbouring seeds and steps over the whole range of a generator's seed
    generator.manual_seed((seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) % 2**63)
    return generator


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


class _Precision(Generic[Model]):
    """The module that computes losses, and the way of its gradients to the float32 weights."""

    def __init__(self, model: Model, config: LoopConfig) -> None:
        self.model, self.mode = model, config.precision
        self.worker: Model = copy.deepcopy(model).to(torch.bfloat16) if config.precision == "copy" else model
        self.device = next(model.parameters()).device.type

    def losses(self, loss_of: LossOf[Model], step: int) -> dict[str, Tensor]:
        """Losses of a step, by the weights as they are now."""
        if self.mode == "copy":
            with torch.no_grad():
                torch._foreach_copy_(list(self.worker.parameters()), list(self.model.parameters()))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mode == "autocast"):
            return loss_of(self.worker, step)

    def backward(self, losses: dict[str, Tensor]) -> None:
        """Gradients of the loss in the model's own parameters; those of a recorded step are there already."""
        if losses["loss"].requires_grad:
            losses["loss"].backward()
        if self.mode != "copy":
            return
        pairs = list(zip(self.model.parameters(), self.worker.parameters(), strict=True))
        moved = [(own, other.grad) for own, other in pairs if other.grad is not None]
        for own, _ in moved:
            own.grad = torch.empty_like(own)
        torch._foreach_copy_([cast("Tensor", own.grad) for own, _ in moved], [gradient for _, gradient in moved])
        for _, other in pairs:
            other.grad = None


def train(
    model: Model,
    loss_of: LossOf[Model],
    config: LoopConfig,
    *,
    out_dir: Path,
    resume_from: Path | None = None,
    evaluate: Evaluate[Model] | None = None,
    report: Callable[[str], None] | None = None,
    replicas: Replicas = ALONE,
) -> LoopResult:
    """Train a model in place; it ends up with the last weights, the result holds the averaged ones.

    Args:
        model: on its device, float32 parameters.
        loss_of: losses of a step by name; "loss" is minimised. Called with the model, or its bf16 copy.
        config: how long and how fast.
        out_dir: receives checkpoints, metrics and the curve; created if missing.
        resume_from: a full checkpoint to continue.
        evaluate: measures of the model; called with the averaged weights in it.
        report: receives a line of text now and then.
        replicas: the processes that train together; the first one writes.

    Raises:
        ConfigError: a loss is not finite; the last checkpoint is left as it was.
        WeightsError: the checkpoint to resume cannot be read or belongs to another model.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    optimizer, result = _begin(model, config, resume_from, replicas)
    parameters = [p for p in model.parameters() if p.requires_grad]
    precision, device = _Precision(model, config), parameters[0].device
    say = report if report is not None and replicas.is_first else _silent
    measure = evaluate if replicas.is_first else None
    start = time.perf_counter() - result.elapsed_s
    last_save = last_evaluation = time.perf_counter()
    first = result.step
    end_s = math.inf if config.pause_after_s is None else result.elapsed_s + config.pause_after_s
    while config.progress(result.step, result.elapsed_s) < 1 and result.elapsed_s < end_s:
        rate = config.rate(result.step, result.elapsed_s)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = precision.losses(loss_of, result.step)
        precision.backward(losses)
        average_gradients(parameters, replicas)
        norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        result.step += 1
        if result.step == first + 1:
            # the first step compiles and warms up: start-up, not training
            float(losses["loss"].detach())
            start = time.perf_counter() - result.elapsed_s
        _average(model, result, config.ema_decay)
        if result.step % config.log_every and result.step != 1:
            continue
        # reading a loss waits for the device, so the clock below it is true; between these lines nothing waits
        row = {name: float(value.detach()) for name, value in losses.items()}
        _require_finite(row, result.step)
        row |= {"step": result.step, "rate": rate, "gradient_norm": float(norm)}
        result.elapsed_s = share_number(time.perf_counter() - start, device, replicas)
        end_s = 0.0 if _is_late(config, device, replicas) else end_s
        row |= {"elapsed_s": result.elapsed_s, "steps_per_s": result.step / max(result.elapsed_s, 1e-9)}
        if replicas.is_first:
            _record(row, result, out_dir)
        if result.step % (10 * config.log_every) == 0 or result.step == 1:
            say(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
        now = time.perf_counter()
        if measure is not None and 0 < config.evaluate_every_s <= now - last_evaluation:
            _evaluate(model, result, measure, out_dir, say)
            last_evaluation = time.perf_counter()
        if replicas.is_first and 0 < config.checkpoint_every_s <= now - last_save:
            save_checkpoint(model, optimizer, result, config, out_dir)
            last_save = time.perf_counter()
        # the clock stood still: measuring and saving are not training time
        start += time.perf_counter() - now
    if measure is not None:
        _evaluate(model, result, measure, out_dir, say)
    if replicas.is_first:
        save_checkpoint(model, optimizer, result, config, out_dir)
        draw_curve(result.metrics, out_dir / CURVE)
    return result


def _begin(
    model: nn.Module, config: LoopConfig, resume_from: Path | None, replicas: Replicas
) -> tuple[torch.optim.AdamW, LoopResult]:
    """Optimiser and averages, from scratch or from a checkpoint, alike in all processes."""
    optimizer = _optimizer(model, config)
    result = LoopResult(ema={k: v.detach().clone() for k, v in model.state_dict().items()})
    if resume_from is not None:
        _resume(resume_from, model, optimizer, result)
    share_tensors([*model.state_dict().values(), *result.ema.values()], replicas)
    model.train()
    return optimizer, result


def _is_late(config: LoopConfig, device: torch.device, replicas: Replicas) -> bool:
    """Whether the time to pause has come, by the first process's clock."""
    if config.pause_at is None:
        return False
    return share_number(float(time.time() >= config.pause_at), device, replicas) > 0


def _require_finite(row: Row, step: int) -> None:
    if not all(math.isfinite(value) for value in row.values()):
        raise ConfigError(
            f"training diverged: step {step} has {row}; resume from the last checkpoint with a lower learning_rate"
        )


def _silent(line: str) -> None:
    """Where nobody listens."""


@torch.no_grad()
def _average(model: nn.Module, result: LoopResult, decay: float) -> None:
    """Exponential moving average with a warm-up, so that the first random weights are soon forgotten."""
    keep = min(decay, (1 + result.step) / (10 + result.step))
    state = model.state_dict()
    floats = [name for name, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([result.ema[name] for name in floats], [state[name] for name in floats], 1 - keep)
    for name in state.keys() - set(floats):
        result.ema[name].copy_(state[name])


def _record(row: Row, result: LoopResult, out_dir: Path) -> None:
    result.metrics.append(row)
    with (out_dir / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _evaluate(
    model: Model, result: LoopResult, evaluate: Evaluate[Model], out_dir: Path, say: Callable[[str], None]
) -> None:
    last = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(result.ema)
    model.eval()
    row = evaluate(model)
    model.load_state_dict(last)
    model.train()
    say(f"evaluation at step {result.step}: " + " ".join(f"{k} {v:.4g}" for k, v in row.items()))
    _record({"step": result.step, "elapsed_s": result.elapsed_s, **row}, result, out_dir)


def save_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    result: LoopResult,
    config: LoopConfig,
    out_dir: Path,
) -> None:
    """Write the full checkpoint, the compact weights and their state; each replaces the old one whole."""
    full = {
        "model": model.state_dict(),
        "ema": result.ema,
        "optimizer": optimizer.state_dict(),
        "step": result.step,
        "elapsed_s": result.elapsed_s,
        "metrics": result.metrics,
    }
    partial = out_dir / (FULL_CHECKPOINT + ".partial")
    torch.save(full, partial)
    partial.replace(out_dir / FULL_CHECKPOINT)
    save_weights(result.ema, out_dir / WEIGHTS)
    state = {
        "step": result.step,
        "elapsed_s": round(result.elapsed_s, 3),
        # 1 when the run is over: a paused one looks the same in all else
        "progress": config.progress(result.step, result.elapsed_s),
        "config": asdict(config),
    }
    (out_dir / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, result: LoopResult) -> None:
    if not path.is_file():
        raise WeightsError(f"training resumes from a full checkpoint ({FULL_CHECKPOINT}); there is none at {path}")
    full = torch.load(path, map_location="cpu", weights_only=True)
    found, wanted = ({(k, tuple(v.shape)) for k, v in s.items()} for s in (full["model"], model.state_dict()))
    if found != wanted:
        raise WeightsError(
            f"{path} belongs to another model: "
            f"missing {sorted(wanted - found)[:4]}, unknown {sorted(found - wanted)[:4]}"
        )
    model.load_state_dict(full["model"])
    optimizer.load_state_dict(full["optimizer"])
    for name, value in full["ema"].items():
        result.ema[name].copy_(value)
    result.step, result.elapsed_s = int(full["step"]), float(full["elapsed_s"])
    result.metrics = list(full["metrics"])


def draw_curve(metrics: list[Row], path: Path) -> bool:
    """Plot loss and measures over time; returns whether a plotting library was there to do it."""
    if not is_installed("matplotlib"):
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = [row for row in metrics if "loss" in row]
    left.plot([row["elapsed_s"] for row in rows], [row["loss"] for row in rows])
    left.set(xlabel="seconds", ylabel="loss", yscale="log")
    measured = [row for row in metrics if "loss" not in row]
    for name in sorted({key for row in measured for key in row} - {"step", "elapsed_s"}):
        points = [(row["elapsed_s"], row[name]) for row in measured if name in row]
        right.plot(*zip(*points, strict=True), marker="o", label=name)
    right.set(xlabel="seconds")
    if right.get_lines():
        right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True
