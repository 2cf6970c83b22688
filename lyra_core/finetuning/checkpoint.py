"""Checkpoints of a run whose state is spread over processes: each writes its part, any number of processes reads it.

The format is torch.distributed.checkpoint with nothing but tensors in it, so that reading one never runs foreign code:
before torch opens it, its index is read by the restricted reader of weights/pickles.py.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lyra_core.errors import StateDictError, WeightsError
from lyra_core.weights.keys import require_match
from lyra_core.weights.pickles import list_pickled

MOMENTS = ("exp_avg", "exp_avg_sq")


def save_sharded(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, elapsed_s: float) -> None:
    """Write what is trained, and its optimiser's moments; an earlier checkpoint is replaced whole.

    Args:
        path: a folder.
        model: its parameters that are trained.
        optimizer: an Adam of these parameters.
        step: steps done.
        elapsed_s: seconds of training.
    """
    import torch.distributed.checkpoint as dcp

    partial = path.with_name(path.name + ".partial")
    if _is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    _wait()
    with warnings.catch_warnings():
        # alone, torch says that it assumes to be alone
        warnings.filterwarnings("ignore", message=".*single process.*")
        dcp.save(_state(model, optimizer, step, elapsed_s), checkpoint_id=str(partial))
    _wait()
    if _is_first():
        old = path.with_name(path.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    _wait()


def load_sharded(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Put a checkpoint back; returns its step and seconds.

    Raises:
        WeightsError: no checkpoint, or a damaged one.
        StateDictError: a checkpoint of another model, or of another choice of what is trained.
        UnsafePickleError: its index asks for a name that no checkpoint needs.
    """
    import torch.distributed.checkpoint as dcp

    if not (path / ".metadata").is_file():
        raise WeightsError(f"training resumes from a folder of a checkpoint; {path} is none")
    state = _state(model, optimizer, 0, 0.0)
    listed = list_pickled(path)
    if listed.others:
        raise StateDictError(f"{path} should hold tensors only, found {'.'.join(listed.others[0])}")
    stored_shapes = {".".join(tensor.path): tensor.stored.shape for tensor in listed.tensors}
    require_match(stored_shapes, {name: tuple(tensor.shape) for name, tensor in state.items()}, str(path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process.*")
        dcp.load(state, checkpoint_id=str(path))
    step = int(state["step"])
    for parameter in _trained(model).values():
        # a fused optimiser counts on the parameter's device
        optimizer.state[parameter]["step"].fill_(float(step))
    return step, float(state["elapsed_s"])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, elapsed_s: float) -> dict[str, Tensor]:
    """The tensors of a checkpoint, not copies of them; moments that are not there yet are made, as zeros."""
    state: dict[str, Tensor] = {
        "step": torch.tensor(step),
        "elapsed_s": torch.tensor(elapsed_s, dtype=torch.float64),
    }
    for name, parameter in _trained(model).items():
        kept = optimizer.state[parameter]
        if not kept:
            is_fused = bool(optimizer.defaults.get("fused"))
            kept["step"] = torch.tensor(0.0, device=parameter.device if is_fused else "cpu")
            kept |= {moment: torch.zeros_like(parameter.detach()) for moment in MOMENTS}
        state[f"model.{name}"] = parameter.detach()
        state |= {f"{moment}.{name}": kept[moment] for moment in MOMENTS}
    return state


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
