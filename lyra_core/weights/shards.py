"""Reads and writes safetensors files as byte ranges: single files, and sets of shards with an
index.

The format (huggingface/safetensors README): eight bytes little-endian length, a JSON header of
name, dtype, shape and
byte range, then the bytes, without holes. The writer streams: at no time is more than one tensor
in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.weights.stored import Piece, StoredTensor, contiguous_strides, item_bytes, read_bits

INDEX_NAME = "model.safetensors.index.json"
HEADER_LIMIT_BYTES = 100_000_000
WRITE_BYTES = 16 << 20


def list_safetensors(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of one file, checked against the file's size.

    Raises:
        WeightsError: missing, truncated or malformed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(HEADER_LIMIT_BYTES, size - 8):
                raise WeightsError(f"{path} is no safetensors file, or it is truncated ({size} bytes)")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("it is no object")
        header.pop("__metadata__", None)
        tensors = [_entry(path, name, entry, 8 + length) for name, entry in header.items()]
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} has a malformed safetensors header: {error}") from error
    end = 8 + length
    for tensor in sorted(tensors, key=lambda tensor: (tensor.pieces[0].start, tensor.nbytes)):
        piece = tensor.pieces[0]
        if piece.start != end or piece.length != tensor.nbytes:
            raise WeightsError(f"{path}: the byte range of {tensor.name} leaves a hole, overlaps or has a wrong length")
        end += piece.length
    if end != size:
        found_as = "truncated" if size < end else "followed by foreign bytes"
        raise WeightsError(f"{path} is {found_as}: its header needs {end} bytes, the file has {size}")
    return tuple(tensors)


def _entry(path: Path, name: str, entry: object, data: int) -> StoredTensor:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is described by {entry!r:.40}")
    (begin, end), sizes, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    numbers = [begin, end - begin, *sizes]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{name} has a size or offset that is no natural number")
    shape = tuple(sizes)
    piece = Piece(
        file=path,
        start=data + begin,
        length=end - begin,
        offset=0,
        strides=contiguous_strides(shape),
        sizes=shape,
        at=(0,) * len(shape),
    )
    return StoredTensor(name=name, dtype=str(dtype), shape=shape, pieces=(piece,))


def list_sharded(index: Path) -> tuple[StoredTensor, ...]:
    """The tensors of all shards named by an index, in the order of the index.

    Raises:
        WeightsError: a shard is missing or damaged, or index and shards disagree.
    """
    try:
        homes = json.loads(index.read_text("utf-8"))["weight_map"]
        files = sorted(set(homes.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is no index of safetensors shards: {error}") from error
    if any(Path(file).name != file for file in files):
        raise WeightsError(f"{index} names files outside its directory")
    if absent := [file for file in files if not (index.parent / file).is_file()]:
        raise WeightsError(f"{index.parent} lacks {len(absent)} of {len(files)} shards: {', '.join(absent[:8])}")
    tensors = {tensor.name: tensor for file in files for tensor in list_safetensors(index.parent / file)}
    strays = [name for name, file in homes.items() if name not in tensors or tensors[name].pieces[0].file.name != file]
    if strays or len(tensors) != len(homes):
        wrong = strays or sorted(set(tensors) - set(homes))
        raise WeightsError(f"{index} and its shards disagree on {len(wrong)} tensors, e.g. {', '.join(wrong[:4])}")
    return tuple(tensors[name] for name in homes)


def write_safetensors(
    path: Path,
    tensors: Sequence[StoredTensor],
    *,
    metadata: dict[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[str, dict[str, str]]:
    """Writes tensors in the given order, durable when it returns.

    Returns:
        sha256 of the file, and the sha256 of each tensor's bytes by name.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # keeps the first tensor aligned
    whole, digests = hashlib.sha256(), {}
    # Hashing is slower than disks and lets other threads run.
    with path.open("wb") as file, ThreadPoolExecutor(2) as pool:
        for data in (struct.pack("<Q", len(text)), text):
            file.write(data)
            whole.update(data)
        for tensor in tensors:
            single = hashlib.sha256()
            flat = read_bits(tensor).reshape(-1).view("u1").data
            for start in range(0, len(flat), WRITE_BYTES):
                part = flat[start : start + WRITE_BYTES]
                hashing = [pool.submit(digest.update, part) for digest in (whole, single)]
                file.write(part)
                wait(hashing)
                if progress:
                    progress(len(part))
            digests[tensor.name] = single.hexdigest()
        file.flush()
        os.fsync(file.fileno())
    return whole.hexdigest(), digests


def plan_shards(tensors: Iterable[StoredTensor], limit_bytes: int) -> list[list[StoredTensor]]:
    """Cuts tensors into shards of at most limit_bytes (a larger tensor is a shard of its own).

    Within a shard wider elements come first, so that every tensor starts at a multiple of its
    element size.
    """
    shards: list[list[StoredTensor]] = [[]]
    room = limit_bytes
    for tensor in tensors:
        if shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = limit_bytes
        shards[-1].append(tensor)
        room -= tensor.nbytes
    return [sorted(shard, key=lambda tensor: -item_bytes(tensor.dtype)) for shard in shards if shard]


def count_parameters(tensors: Iterable[StoredTensor]) -> int:
    """Elements of all tensors."""
    return sum(math.prod(tensor.shape) for tensor in tensors)
