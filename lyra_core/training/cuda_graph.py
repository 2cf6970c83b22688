"""A training step recorded once as a CUDA graph: a small network on a fast GPU waits for the processor otherwise.

The mini video network launches 2,600 kernels a step of 32 samples: 51 ms of work in 91 ms on an H200 (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Batch = TypeVar("Batch", bound="DataclassInstance")

WARM_UPS = 3


class CudaGraphStep(Generic[Batch]):
    """Losses and gradients of batches of one shape.

    What is recorded may not draw random numbers or read values on the processor: a batch (a dataclass of tensors)
    holds everything drawn. Weights are read where they are at each call.
    """

    def __init__(
        self, compute: Callable[[Batch], dict[str, Tensor]], parameters: Sequence[nn.Parameter], batch: Batch
    ) -> None:
        """Record the step.

        Args:
            compute: losses by name; "loss" is differentiated.
            parameters: receive gradients.
            batch: of the shape of all batches to come, on a GPU.
        """
        self.parameters = [p for p in parameters if p.requires_grad]
        self.names = [field.name for field in fields(batch)]
        self.batch = replace(batch, **{name: getattr(batch, name).clone() for name in self.names})  # type: ignore[type-var]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                compute(self.batch)["loss"].backward()  # type: ignore[no-untyped-call]
                self._clear()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # only this thread's calls are recorded; others had better rest, see Prefetch.settle
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            losses = compute(self.batch)
            losses["loss"].backward()  # type: ignore[no-untyped-call]
        self.losses = {name: value.detach() for name, value in losses.items()}
        self.gradients = [p.grad for p in self.parameters]
        self._clear()

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch, valid until the next call; gradients are in the parameters."""
        for name in self.names:
            cast("Tensor", getattr(self.batch, name)).copy_(getattr(batch, name))
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.losses
