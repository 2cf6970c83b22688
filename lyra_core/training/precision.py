"""The number format that losses are computed in, and the way of their gradients to the float32 weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
LossOf = Callable[[Model, int], dict[str, Tensor]]
PrecisionMode = Literal["float32", "autocast", "copy"]


class Precision(Generic[Model]):
    """The module that computes losses, and the way of its gradients to the float32 weights."""

    def __init__(self, model: Model, mode: PrecisionMode) -> None:
        self.model, self.mode = model, mode
        self.worker: Model = copy.deepcopy(model).to(torch.bfloat16) if mode == "copy" else model
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
