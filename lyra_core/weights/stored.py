"""Where the bytes of a tensor lie, for every format: files, byte ranges, strides; and how to read
them.

The released files come in four formats; each is reduced to a list of `StoredTensor`, so that
everything behind it
(key maps, conversion, loading) knows one thing only. Reading maps files into memory and interprets
numbers: no pickle.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lyra_core.errors import WeightsError

if TYPE_CHECKING:
    import torch

# safetensors dtype names (the format's README) and the integers that carry their bits
BITS: dict[str, str] = {
    "F64": "<i8", "I64": "<i8", "U64": "<i8", "F32": "<i4", "I32": "<i4", "U32": "<i4",
    "F16": "<i2", "BF16": "<i2", "I16": "<i2", "U16": "<i2",
    "I8": "|u1", "U8": "|u1", "BOOL": "|u1", "F8_E4M3": "|u1", "F8_E5M2": "|u1",
}  # fmt: skip
TORCH_NAMES: dict[str, str] = {
    "F64": "float64", "I64": "int64", "U64": "uint64", "F32": "float32", "I32": "int32",
    "U32": "uint32", "F16": "float16", "BF16": "bfloat16", "I16": "int16", "U16": "uint16",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
CHECK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A block of a tensor, as a strided view of one contiguous record of a file.

    Attributes:
        file: the file.
        start: first byte of the record in the file.
        length: bytes of the record.
        crc: CRC-32 of the record, or None where the format keeps none.
        offset: elements from the start of the record to the block's first element.
        strides: elements between neighbours along each axis.
        sizes: shape of the block.
        at: index of the block's first element in the tensor.
    """

    file: Path
    start: int
    length: int
    crc: int | None = None
    offset: int
    strides: tuple[int, ...]
    sizes: tuple[int, ...]
    at: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor on disk.

    Attributes:
        name: its key.
        dtype: the safetensors name of its dtype ("BF16", "F32", ...).
        shape: its shape.
        pieces: the blocks that make it up.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * item_bytes(self.dtype)


def item_bytes(dtype: str) -> int:
    """Bytes of one element.

    Raises:
        WeightsError: the dtype is unknown.
    """
    if dtype not in BITS:
        raise WeightsError(f"dtype {dtype!r} is not supported; known are {', '.join(BITS)}")
    return np.dtype(BITS[dtype]).itemsize


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of a shape, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def require_sound(tensor: StoredTensor) -> None:
    """Checks that the pieces tile the tensor and lie within their files.

    Raises:
        WeightsError: a piece reaches outside, or the pieces do not add up.
    """
    width, covered = item_bytes(tensor.dtype), 0
    boxes: list[tuple[tuple[int, int], ...]] = []
    for piece in tensor.pieces:
        ranks = {len(piece.sizes), len(piece.strides), len(piece.at), len(tensor.shape)}
        numbers = (piece.start, piece.length, piece.offset, *piece.sizes, *piece.strides, *piece.at)
        inside = all(a + s <= n for a, s, n in zip(piece.at, piece.sizes, tensor.shape, strict=False))
        if len(ranks) != 1 or min(numbers) < 0 or not inside:
            raise WeightsError(f"{piece.file.name}: a block of {tensor.name} does not fit into shape {tensor.shape}")
        count = math.prod(piece.sizes)
        last = piece.offset + sum(step * (size - 1) for step, size in zip(piece.strides, piece.sizes, strict=True))
        if count and (last + 1) * width > piece.length:
            raise WeightsError(f"{piece.file.name}: {tensor.name} reaches beyond its record; the file is damaged")
        if piece.start + piece.length > piece.file.stat().st_size:
            raise WeightsError(f"{piece.file.name} is truncated: {tensor.name} ends beyond the file")
        box = tuple((a, a + s) for a, s in zip(piece.at, piece.sizes, strict=True))
        if count and any(_overlap(box, other) for other in boxes):
            raise WeightsError(f"{piece.file.name}: two blocks of {tensor.name} overlap; the file is damaged")
        boxes.append(box)
        covered += count
    if covered != math.prod(tensor.shape):
        raise WeightsError(
            f"{tensor.name} of shape {tensor.shape} has {math.prod(tensor.shape)} elements, its files hold {covered}"
        )


def _overlap(one: tuple[tuple[int, int], ...], two: tuple[tuple[int, int], ...]) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(one, two, strict=True))


def verify_crc(tensor: StoredTensor) -> None:
    """Compares the records of a tensor with the checksums their container keeps.

    Raises:
        WeightsError: a record differs from its checksum.
    """
    for piece in tensor.pieces:
        if piece.crc is None:
            continue
        checksum, left = 0, piece.length
        with piece.file.open("rb") as file:
            file.seek(piece.start)
            while left:
                data = file.read(min(left, CHECK_BYTES))
                if not data:
                    raise WeightsError(f"{piece.file.name} is truncated within {tensor.name}")
                checksum, left = zlib.crc32(data, checksum), left - len(data)
        if checksum != piece.crc:
            raise WeightsError(
                f"{piece.file.name}: the bytes of {tensor.name} differ from their checksum "
                f"({checksum:08x}, should be {piece.crc:08x}); the file is damaged or was changed: "
                "fetch it again"
            )


def _block(piece: Piece, dtype: str) -> np.ndarray:
    bits = np.dtype(BITS[dtype])
    if not math.prod(piece.sizes):
        return np.empty(piece.sizes, bits)
    # Copy-on-write: a caller may change its tensor, never the file.
    mapped = np.memmap(
        piece.file,
        np.uint8,
        mode="c",
        offset=piece.start,
        shape=(piece.length // bits.itemsize * bits.itemsize,),
    )
    elements = np.asarray(mapped).view(bits)[piece.offset :]
    return np.lib.stride_tricks.as_strided(elements, piece.sizes, [step * bits.itemsize for step in piece.strides])


def read_bits(tensor: StoredTensor) -> np.ndarray:
    """The tensor as integers of its element size, C-contiguous; a view of the file where it can be.

    Raises:
        WeightsError: the file is damaged.
    """
    require_sound(tensor)
    if len(tensor.pieces) == 1:
        return np.ascontiguousarray(_block(tensor.pieces[0], tensor.dtype)).reshape(tensor.shape)
    whole = np.empty(tensor.shape, BITS[tensor.dtype])
    for piece in tensor.pieces:
        place = tuple(slice(a, a + s) for a, s in zip(piece.at, piece.sizes, strict=True))
        whole[place] = _block(piece, tensor.dtype)
    return whole


def read_tensor(tensor: StoredTensor) -> torch.Tensor:
    """The tensor on the CPU; a copy-on-write view of the file where it can be.

    Raises:
        WeightsError: the file is damaged.
    """
    import torch

    bits = read_bits(tensor)
    if not bits.flags.aligned:
        bits = bits.copy()
    return torch.from_numpy(bits).view(getattr(torch, TORCH_NAMES[tensor.dtype]))
