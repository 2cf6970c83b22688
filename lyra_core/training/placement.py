"""Where a network's weights lie: on its device, kernels in the order that convolutions there are fastest with."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def placed(model: Module, device: torch.device, dtype: torch.dtype | None = None) -> Module:
    """A network on a device, on a GPU with channels last; moved in place where it can be.

    Args:
        model: any network.
        device: where it will compute.
        dtype: of its weights; None leaves them.
    """
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    model = model.to(device, dtype)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model
