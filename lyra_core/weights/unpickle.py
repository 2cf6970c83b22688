"""The sandboxed half of reading pickled weights: turns pickles into a JSON index and nothing else.

`lyra_core.weights.pickles` runs this module in an interpreter of its own (`python -I -S -B`),
without
environment and packages, with limits on memory, time and files. Tensor bytes are not read here: the
index says in which file, at which byte and with which strides each tensor lies, and the parent
reads
them as plain numbers. Only the standard library may be imported.

Formats (public torch sources): the zip container of `torch.save` (torch >= 1.6), its predecessor of
five consecutive pickles, and the directories of `torch.distributed.checkpoint`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import sys
import zipfile
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from lyra_core.errors import UnsafePickleError, WeightsError
from lyra_core.weights.allowlist import (
    CaptionUnpickler,
    Dtype,
    Index,
    Inert,
    RestrictedUnpickler,
    Storage,
    Strided,
    TensorEntry,
    integers,
)

MEMORY_LIMIT_BYTES = 4 << 30
CPU_LIMIT_S = 900
PICKLE_LIMIT_BYTES = 512 << 20
NESTING_LIMIT = 6
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# What damaged bytes make the readers of the standard library raise
UNREADABLE = (
    zipfile.BadZipFile, pickle.UnpicklingError, EOFError, OSError, struct.error, ValueError,
    TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError,
    NotImplementedError, ImportError,
)  # fmt: skip
REFUSED_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.chown", "subprocess.", "socket.", "ctypes.", "shutil.", "urllib.", "pty.", "webbrowser.",
)  # fmt: skip

ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}


class Record(NamedTuple):
    """Where the bytes of a storage lie, in bytes from the start of a file; crc is None where the
    format has none."""

    file: str
    start: int
    length: int
    crc: int | None


class Window(io.RawIOBase):
    """A read-only stretch of a file that behaves like a file of its own."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        super().__init__()
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the stretch.

        Raises:
            WeightsError: a place before the stretch.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise WeightsError("a record starts before its file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads up to the end of the stretch."""
        count = max(0, min(len(buffer), self._length - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass
class Listing:
    """The JSON index under construction."""

    tensors: list[dict[str, object]] = field(default_factory=list)
    others: list[dict[str, object]] = field(default_factory=list)

    def add(self, path: list[str], value: object, records: dict[str, Record], depth: int = 0) -> None:
        """Lists a value and everything below it."""
        if isinstance(value, Strided):
            piece = piece_of(value, records)
            self.tensors.append({"path": path, "dtype": value.dtype, "shape": value.shape, "pieces": [piece]})
        elif isinstance(value, dict) and depth < NESTING_LIMIT:
            for key, child in value.items():
                self.add([*path, str(key)], child, records, depth + 1)
        elif isinstance(value, list | tuple) and not isinstance(value, Storage | Dtype) and depth < NESTING_LIMIT:
            for position, child in enumerate(value):
                self.add([*path, str(position)], child, records, depth + 1)
        else:
            self.others.append({"path": path, "type": type(value).__name__})


def piece_of(tensor: Strided, records: dict[str, Record], at: tuple[int, ...] | None = None) -> dict[str, object]:
    """A tensor, or a chunk of one that begins at index `at`, as a stretch of a file, in plain
    numbers.

    Raises:
        WeightsError: its record is missing.
    """
    record = records.get(tensor.storage.key)
    if record is None:
        raise WeightsError(f"storage record {tensor.storage.key!r} is missing: the file is truncated")
    return {
        "file": record.file,
        "start": record.start,
        "length": record.length,
        "crc": record.crc,
        "offset": tensor.offset,
        "strides": tensor.strides,
        "sizes": tensor.shape,
        "at": at if at is not None else (0,) * len(tensor.shape),
    }


def load_zip(file: IO[bytes], name: str, start: int, length: int) -> tuple[object, dict[str, Record]]:
    """The object and the storage records of one torch zip container.

    Raises:
        WeightsError: another kind of zip, or a damaged, compressed or big-endian one.
    """
    records: dict[str, Record] = {}
    with zipfile.ZipFile(io.BufferedReader(Window(file, start, length))) as container:
        pickles = [info for info in container.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError("a file of torch.save holds exactly one data.pkl: is this another kind of zip?")
        if pickles[0].file_size > PICKLE_LIMIT_BYTES:
            raise WeightsError(f"its data.pkl has {pickles[0].file_size} bytes, more than any state dict needs")
        root = pickles[0].filename.removesuffix("data.pkl")
        members = {info.filename: info for info in container.infolist()}
        if f"{root}byteorder" in members and container.read(f"{root}byteorder") != b"little":
            raise WeightsError("big-endian files are not supported; save the file again on a little-endian machine")
        for filename, info in members.items():
            if not filename.startswith(f"{root}data/"):
                continue
            if info.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"record {filename} is compressed, which torch never does")
            file.seek(start + info.header_offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise WeightsError(f"record {filename} has no local header: the file is truncated or tampered with")
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            begin = start + info.header_offset + 30 + name_length + extra_length
            if begin + info.file_size > start + length:
                raise WeightsError(f"record {filename} ends beyond the file: it is truncated")
            records[filename.removeprefix(f"{root}data/")] = Record(name, begin, info.file_size, info.CRC)
        value = RestrictedUnpickler(io.BytesIO(container.read(pickles[0].filename))).load()
    return value, records


def load_legacy(file: IO[bytes], name: str, length: int) -> tuple[object, dict[str, Record]]:
    """The object and the storage records of torch's format before 1.6: five pickles, then counted
    raw storages.

    Raises:
        WeightsError: another kind of pickle, or a truncated or big-endian one.
    """
    file.seek(0)
    if RestrictedUnpickler(file).load() != LEGACY_MAGIC:
        raise WeightsError("it is a bare pickle, not a file of torch.save")
    RestrictedUnpickler(file).load()
    system = RestrictedUnpickler(file).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("big-endian files are not supported; save the file again on a little-endian machine")
    storages: dict[str, Storage] = {}

    class Remembering(RestrictedUnpickler):
        def persistent_load(self, reference: object) -> Storage:
            storage = super().persistent_load(reference)
            storages[storage.key] = storage
            return storage

    value = Remembering(file).load()
    keys = RestrictedUnpickler(file).load()
    if not isinstance(keys, list):
        raise WeightsError("the list of storages is missing")
    records: dict[str, Record] = {}
    for key in keys:
        header = file.read(8)
        if key not in storages or len(header) < 8:
            raise WeightsError(f"storage {key!r} is missing: the file is truncated")
        count, start = struct.unpack("<q", header)[0], file.tell()
        size = count * ITEM_BYTES.get(storages[key].dtype, 1)
        if count != storages[key].numel or start + size > length:
            raise WeightsError(f"storage {key!r} ends beyond the file: it is truncated")
        records[key] = Record(name, start, size, None)
        file.seek(start + size)
    return value, records


def list_torch_file(path: str) -> Listing:
    """Lists a file of torch.save.

    Raises:
        WeightsError: no file of torch.save, or a damaged one.
    """
    listing, name = Listing(), path.rpartition("/")[2]
    with open(path, "rb") as file:  # noqa: PTH123 - the sandbox imports as little as possible
        length = os.fstat(file.fileno()).st_size
        magic = file.read(4)
        if magic[:2] == b"PK":
            value, records = load_zip(file, name, 0, length)
        elif magic[:1] == b"\x80":
            value, records = load_legacy(file, name, length)
        else:
            raise WeightsError("it is neither a zip container nor a pickle: no file of torch.save")
    listing.add([], value, records)
    return listing


def list_captions(path: str) -> list[tuple[int, str]]:
    """Captions by frame from a pickled dictionary of frames, whose values are texts or have one under "caption".

    Raises:
        WeightsError: no dictionary of texts by frame, or one too large.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - the sandbox imports as little as possible
        length = os.fstat(file.fileno()).st_size
        if length > PICKLE_LIMIT_BYTES:
            raise WeightsError(f"it has {length} bytes, more than captions of a video need")
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        value = load_zip(file, "", 0, length)[0] if is_zip else CaptionUnpickler(file).load()
    if not isinstance(value, dict):
        raise WeightsError(f"captions should be a dictionary by frame, found {type(value).__name__}")
    captions: list[tuple[int, str]] = []
    for frame, entry in value.items():
        caption = entry.get("caption") if isinstance(entry, dict) else entry
        if not str(frame).isdecimal() or not isinstance(caption, str):
            raise WeightsError(f"the entry of frame {frame!r:.40} should be a text, or a dictionary with a 'caption'")
        captions.append((int(frame), caption))
    return captions


def _chunk_records(metadata: Inert) -> dict[tuple[str, tuple[int, ...]], Inert]:
    """The stored stretch of each chunk, by tensor name and first index."""
    stored = getattr(metadata, "storage_data", None)
    if not isinstance(stored, dict):
        raise WeightsError(".metadata holds no storage_data")
    records: dict[tuple[str, tuple[int, ...]], Inert] = {}
    for index, info in stored.items():
        if not isinstance(index, Index) or not isinstance(info, Inert):
            raise WeightsError(".metadata has an entry that is not an index and a storage info")
        if getattr(info, "transform_descriptors", None):
            raise WeightsError("it was written through transforms (compression), which are not supported")
        records[str(getattr(index, "fqn", "")), integers(getattr(index, "offset", None) or ())] = info
    return records


def list_distributed_checkpoint(directory: str) -> Listing:
    """Lists a directory of torch.distributed.checkpoint.

    Raises:
        WeightsError: no such checkpoint, or a damaged one.
    """
    with open(os.path.join(directory, ".metadata"), "rb") as file:  # noqa: PTH118, PTH123
        metadata = RestrictedUnpickler(file).load()
    entries = getattr(metadata, "state_dict_metadata", None)
    if not isinstance(metadata, Inert) or not isinstance(entries, dict):
        raise WeightsError(".metadata is not the metadata of a distributed checkpoint")
    stored, listing = _chunk_records(metadata), Listing()
    opened: dict[str, IO[bytes]] = {}
    try:
        for name, entry in entries.items():
            if not isinstance(entry, TensorEntry):
                listing.others.append({"path": [str(name)], "type": "bytes"})
                continue
            shape, pieces, dtype = integers(getattr(entry, "size", None)), [], ""
            for chunk in getattr(entry, "chunks", ()):
                at, sizes = (
                    integers(getattr(chunk, "offsets", None)),
                    integers(getattr(chunk, "sizes", None)),
                )
                # A tensor of one chunk may be indexed without an offset.
                info = stored.get((str(name), at)) or stored.get((str(name), ()))
                if info is None:
                    raise WeightsError(f"no stored chunk of {name} begins at {at}")
                tensor, records = _load_chunk(directory, info, opened)
                if tensor.shape != sizes:
                    raise WeightsError(f"a chunk of {name} should have shape {sizes}, its file holds {tensor.shape}")
                pieces.append(piece_of(tensor, records, at))
                dtype = dtype or tensor.dtype
            listing.tensors.append({"path": [str(name)], "dtype": dtype, "shape": shape, "pieces": pieces})
    finally:
        for handle in opened.values():
            handle.close()
    return listing


def _load_chunk(directory: str, info: Inert, opened: dict[str, IO[bytes]]) -> tuple[Strided, dict[str, Record]]:
    name, start, length = (getattr(info, field, None) for field in ("relative_path", "offset", "length"))
    if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
        raise WeightsError(f"a chunk points outside its directory: {name!r:.80}")
    if type(start) is not int or type(length) is not int or start < 0 or length < 0:
        raise WeightsError(f"a chunk in {name} has no offset or length")
    if name not in opened:
        opened[name] = open(os.path.join(directory, name), "rb")  # noqa: PTH118, PTH123, SIM115
    if start + length > os.fstat(opened[name].fileno()).st_size:
        raise WeightsError(f"{name} is truncated: a chunk of {length} bytes should begin at byte {start}")
    value, records = load_zip(opened[name], name, start, length)
    if not isinstance(value, Strided):
        raise WeightsError(f"a chunk in {name} is not a tensor")
    return value, records


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: even code that escaped the unpickler could start, send, write or delete
    nothing."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith(REFUSED_EVENTS):
        raise PermissionError(f"{event} is refused while pickles are read")


def _confine() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_CPU, CPU_LIMIT_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))
    sys.addaudithook(_refuse)


def main() -> int:
    """Reads a job from standard input, writes the index, or why there is none, to standard
    output."""
    job = json.load(sys.stdin)
    _confine()
    try:
        if job.get("captions"):
            answer: dict[str, object] = {"captions": list_captions(job["path"])}
        else:
            listed = list_distributed_checkpoint if job["distributed"] else list_torch_file
            listing = listed(job["path"])
            answer = {"tensors": listing.tensors, "others": listing.others}
    except UnsafePickleError as error:
        answer = {"forbidden": str(error)}
    except WeightsError as error:
        answer = {"broken": str(error)}
    except UNREADABLE as error:
        answer = {"broken": f"it does not unpickle ({type(error).__name__}: {error})"}
    json.dump(answer, sys.stdout)
    return 0
