"""Weights that wait in host memory and come to a device when they are used, for GPUs that cannot hold all networks.

    waiting = HostedWeights(module, device)
    with waiting:           # copied to the device, freed there afterwards
        module(...)

Weights are packed into pieces of pinned memory, so that copies run beside the device's work. A block's may also be
copied into room that the next blocks reuse (lyra_core.video.dit.streaming). Weights must not change while they wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes at whose multiples tensors begin, as the device's allocator has them."""
PIECE_BYTES = 2**30
"""Of one piece of pinned memory; the allocator rounds up to a power of two."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies."""

    tensor: Tensor
    piece: int
    start: int
    dtype: torch.dtype
    shape: torch.Size


class HostedWeights:
    """The parameters and buffers of a module, in host memory until they are asked for."""

    def __init__(
        self, module: nn.Module, device: torch.device | str, *, stays: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Move a module's weights from wherever they are.

        Args:
            module: its tensors are redirected in place.
            device: where it computes.
            stays: names of the tensors that live on the device all the time.
        """
        self.device = torch.device(device)
        self._places: list[_Place] = []
        self.sizes: list[int] = []
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, tensor in tensors.items():
            if stays(name):
                tensor.data = tensor.data.to(self.device)
            else:
                self._places.append(self._placed(tensor))
        pinned = self.device.type == "cuda"
        self.pieces = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in self.sizes]
        for place in self._places:
            room = self._view(self.pieces, place)
            room.copy_(place.tensor.data)
            place.tensor.data = room
        self._users = 0

    def _placed(self, tensor: Tensor) -> _Place:
        needed = -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
        if not self.sizes or self.sizes[-1] + needed > PIECE_BYTES:
            self.sizes.append(0)
        start = self.sizes[-1]
        self.sizes[-1] += needed
        return _Place(tensor, len(self.sizes) - 1, start, tensor.dtype, tensor.shape)

    @staticmethod
    def _view(pieces: list[Tensor], place: _Place) -> Tensor:
        count = place.shape.numel() * place.dtype.itemsize
        return pieces[place.piece][place.start : place.start + count].view(place.dtype).view(place.shape)

    @property
    def num_bytes(self) -> int:
        """Of all that waits."""
        return sum(self.sizes)

    def room(self) -> list[Tensor]:
        """Room on the device for all that waits."""
        return [torch.empty(size, dtype=torch.uint8, device=self.device) for size in self.sizes]

    def copy_to(self, rooms: list[Tensor]) -> None:
        """Copy all weights, on the current stream; the module goes on using those of the host."""
        for room, piece in zip(rooms, self.pieces, strict=True):
            room[: piece.shape[0]].copy_(piece, non_blocking=True)

    def use(self, rooms: list[Tensor]) -> None:
        """Let the module use what was copied."""
        for place in self._places:
            place.tensor.data = self._view(rooms, place)

    def leave(self) -> None:
        """Let the module's weights be those of the host again."""
        self.use(self.pieces)

    def __enter__(self) -> None:
        """Bring everything, unless it is there already."""
        self._users += 1
        if self._users > 1:
            return
        rooms = self.room()
        self.copy_to(rooms)
        self.use(rooms)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the device's memory, once nobody uses it."""
        self._users -= 1
        if not self._users:
            self.leave()
