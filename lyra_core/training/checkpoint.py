"""Files of a training: the full checkpoint, to resume from, and the EMA weights in bfloat16, to use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from lyra_core.errors import WeightsError
from lyra_core.training.loop_config import LoopConfig, LoopResult
from lyra_core.training.metrics import Row
from lyra_core.training.precision import Model
from lyra_core.weights.ema_weights import WEIGHTS, save_weights

FULL_CHECKPOINT = "full.pt"
STATE = "state.json"


def save_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    result: LoopResult,
    config: LoopConfig,
    out_dir: Path,
) -> None:
    """Write the full checkpoint, the EMA weights and their state; each replaces the old one whole."""
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


def resume_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, result: LoopResult) -> None:
    """Put model, optimiser and result in the state of a full checkpoint.

    Raises:
        WeightsError: it cannot be read, or belongs to another model.
    """
    if not path.is_file():
        raise WeightsError(f"training resumes from a full checkpoint ({FULL_CHECKPOINT}); there is none at {path}")
    full = torch.load(path, map_location="cpu", weights_only=True)
    stored, expected = ({(k, tuple(v.shape)) for k, v in s.items()} for s in (full["model"], model.state_dict()))
    if stored != expected:
        raise WeightsError(
            f"{path} belongs to another model: "
            f"missing {sorted(expected - stored)[:4]}, unknown {sorted(stored - expected)[:4]}"
        )
    model.load_state_dict(full["model"])
    optimizer.load_state_dict(full["optimizer"])
    for name, value in full["ema"].items():
        result.ema[name].copy_(value)
    result.step, result.elapsed_s = int(full["step"]), float(full["elapsed_s"])
    result.metrics = list(full["metrics"])


def save_shipped(model: Model, result: LoopResult, evaluate: Callable[[Model], Row], out_dir: Path) -> None:
    """Save the weights that a model has now, and measure what is shipped: the weights as the file holds them.

    Args:
        model: in float32; it ends up with what the file holds.
        result: receives the weights, and a row of measures whose names end in "_shipped".
        evaluate: the measures.
        out_dir: folder of the run.
    """
    result.ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    save_weights(result.ema, out_dir / WEIGHTS)
    model.load_state_dict({name: value.bfloat16().float() for name, value in result.ema.items()})
    model.eval()
    result.metrics.append({f"{name}_shipped": value for name, value in evaluate(model).items()})
