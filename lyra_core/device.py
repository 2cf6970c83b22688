"""Where torch computes, checked before anything is loaded there."""

from __future__ import annotations

from lyra_core.errors import RecipeError


def require_device(name: str) -> None:
    """Check that a device exists.

    Args:
        name: as torch names devices.

    Raises:
        RecipeError: torch knows no such device, or this machine has no such GPU.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(f"device: wanted cpu, cuda or cuda:N, found {name!r}") from error
    if device.type != "cuda":
        return
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise RecipeError(
            f"device: wanted {name}, found {count or 'no'} NVIDIA GPU{'s' if count > 1 else ''} on this machine; use "
            "cpu or another machine"
        )
