"""What a pipeline takes of its machine: GPUs, and the code that its processes import."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lyra_core.errors import ConfigError


def gpu_names(count: int | None, device: str) -> tuple[str, ...]:
    """GPUs as CUDA_VISIBLE_DEVICES names them; on a CPU so many places for processes.

    Raises:
        ConfigError: more than the machine has, or none.
    """
    if device == "cpu":
        names = [str(number) for number in range(1 if count is None else count)]
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    else:
        names = [str(number) for number in range(torch.cuda.device_count())]
    used = len(names) if count is None else count
    if not 1 <= used <= len(names):
        raise ConfigError(f"wanted {used} GPUs, found {len(names)}; --debug --device cpu tries the steps without one")
    return tuple(names[:used])


def import_path() -> str:
    """PYTHONPATH with which processes find this very lyra_core, wherever they run."""
    here = str(Path(__file__).resolve().parents[3])
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([here, *(entry for entry in others if entry)])
