"""EMA weights of a training run: `weights.safetensors` in bfloat16, written by a run and read to use or go on with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lyra_core.errors import WeightsError

WEIGHTS = "weights.safetensors"


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Averaged weights as safetensors in bfloat16 (integers as they are)."""
    from safetensors.torch import save_file

    compact = {
        name: (value.to(torch.bfloat16) if value.is_floating_point() else value).cpu().contiguous()
        for name, value in state.items()
    }
    partial = path.with_name(path.name + ".partial")
    save_file(compact, str(partial))
    partial.replace(path)


def load_weights(model: nn.Module, path: Path, component: str) -> None:
    """EMA weights into a model of the same shapes, whatever its dtype.

    Args:
        model: receives them.
        path: a weights.safetensors, or a folder of packed weights (lyra_core.mini.files).
        component: of the folder.

    Raises:
        WeightsError: no such file, or weights of another model.
    """
    load_state(model, read_weights(path, component), path)


def load_state(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Weights by name into a model of exactly these shapes; `path` is where they came from.

    Raises:
        WeightsError: weights of another model.
    """
    found, wanted = ({(k, tuple(v.shape)) for k, v in s.items()} for s in (state, model.state_dict()))
    if found != wanted:
        raise WeightsError(
            f"{path} belongs to another model: "
            f"missing {sorted(wanted - found)[:4]}, unknown {sorted(found - wanted)[:4]}"
        )
    model.load_state_dict(state)


def read_weights(path: Path, component: str) -> dict[str, Tensor]:
    """EMA weights by name; arguments as those of load_weights.

    Raises:
        WeightsError: no such file.
    """
    from safetensors.torch import load_file

    from lyra_core.mini.files import read_state

    if path.is_dir():
        return read_state(path, component)[0]
    if path.is_file():
        return load_file(str(path))
    raise WeightsError(f"weights are read from a {WEIGHTS} or a folder of packed weights; there is none at {path}")
