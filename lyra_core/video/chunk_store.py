"""Keeps finished chunks where a killed process finds them again: one tensor file a chunk, and a list of them.

    <folder>/chunk-0000.safetensors   the tensors of the record (written whole, then renamed)
    <folder>/chunks.json              the list: ids and digests, replaced after each chunk

A chunk counts from the moment the list names it. A chunk that was asked for differently (another id or other inputs) is
not found, so a longer camera path continues a shorter one and a changed one starts anew where it differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lyra_core.errors import LyraWarning, StoreError, TornObjectError

LIST_NAME = "chunks.json"
FORMAT = "lyra-chunks/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """What is known of every chunk; the other fields of a record are tensors.

    Attributes:
        chunk_id: its link in the world's chain of ids.
        inputs_sha256: digest of everything that was asked up to and with this chunk.
        caption: the caption it was generated under.
    """

    chunk_id: str
    inputs_sha256: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord(StoredChunk):
    """What one finished chunk of Lyra 2's rollout leaves behind.

    Attributes:
        sampled: latents as sampled. [c t h w] float32
        history: latents later chunks see as its history. [c t h w] float32
        depth_m: depth of some of its frames, 0 where unknown. [n h w] float32
        depth_frames: which. [n] int64
        world_to_cam: cameras of its frames. [f 4 4] float64
        intrinsics: theirs. [f 3 3] float64
    """

    sampled: Float[Tensor, "c t h w"]
    history: Float[Tensor, "c t h w"]
    depth_m: Float[Tensor, "n rows columns"]
    depth_frames: Int64[Tensor, " n"]
    world_to_cam: Float[Tensor, "f 4 4"]
    intrinsics: Float[Tensor, "f 3 3"]


Record = TypeVar("Record", bound=StoredChunk)


class ChunkStore(Generic[Record]):
    """The finished chunks of one world in a local folder."""

    def __init__(self, folder: str | Path, kind: type[Record] = ChunkRecord) -> None:  # type: ignore[assignment]
        """`kind` is the record that a rollout keeps."""
        self.folder = Path(folder)
        self.kind = kind

    @property
    def tensors(self) -> Sequence[str]:
        """Names of the record's tensors."""
        known = {field.name for field in fields(StoredChunk)}
        return [field.name for field in fields(self.kind) if field.name not in known]

    def caption(self, index: int, chunk_id: str) -> str | None:
        """The caption a finished chunk of this id was generated under, or None.

        Raises:
            StoreError: the list cannot be read.
        """
        entries = self._entries()
        has_caption = index < len(entries) and entries[index]["chunk_id"] == chunk_id
        return entries[index]["caption"] if has_caption else None

    def read(self, index: int, chunk_id: str, inputs_sha256: str) -> Record | None:
        """A finished chunk, or None if it was asked for differently or is not there.

        A torn or altered file is as good as none, and gives a LyraWarning: the chunk is generated again.

        Raises:
            StoreError: the list cannot be read.
        """
        entries = self._entries()
        if index >= len(entries):
            return None
        entry = entries[index]
        if (entry["chunk_id"], entry["inputs_sha256"]) != (chunk_id, inputs_sha256):
            return None
        return self._read(entry)

    def write(self, index: int, record: Record) -> None:
        """Add a chunk after the first `index` ones; later ones are forgotten.

        Raises:
            StoreError: the folder cannot be written, or earlier chunks are missing.
        """
        entries = self._entries()
        if len(entries) < index:
            raise StoreError(f"chunk {index} needs {index} chunks before it in {self.folder}, found {len(entries)}")
        name = f"chunk-{index:04d}.safetensors"
        tensors = {key: getattr(record, key).detach().cpu().contiguous() for key in self.tensors}
        # One key only: the header's order of several differs from process to process, and equal chunks are equal bytes.
        data = save(tensors, metadata={"format": f"{FORMAT} {record.chunk_id}"})
        self._put(name, data)
        entry = {
            "file": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "chunk_id": record.chunk_id,
            "inputs_sha256": record.inputs_sha256,
            "caption": record.caption,
        }
        listed = {"format": FORMAT, "chunks": [*entries[:index], entry]}
        self._put(LIST_NAME, (json.dumps(listed, indent=1) + "\n").encode())

    def _entries(self) -> list[dict[str, str]]:
        path = self.folder / LIST_NAME
        if not path.exists():
            return []
        try:
            listed = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise TornObjectError(f"cannot read {path}: {error}; remove the folder to start the world again") from error
        if listed.get("format") != FORMAT:
            raise TornObjectError(
                f"{path} must have the format {FORMAT}, found {listed.get('format')!r}; "
                f"remove the folder to start the world again"
            )
        entries: list[dict[str, str]] = listed["chunks"]
        return entries

    def _read(self, entry: dict[str, str]) -> Record | None:
        path = self.folder / entry["file"]
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                raise ValueError("its digest differs from the list's")
            tensors = load(data)
        except (OSError, ValueError, SafetensorError) as error:
            warnings.warn(f"chunk {path} is unusable ({error}); it is generated again", LyraWarning, stacklevel=3)
            return None
        return self.kind(
            chunk_id=entry["chunk_id"],
            inputs_sha256=entry["inputs_sha256"],
            caption=entry["caption"],
            **{key: tensors[key] for key in self.tensors},
        )

    def _put(self, name: str, data: bytes) -> None:
        """Write whole and rename, so that a reader sees the old file or the new one; both survive a power cut."""
        target, temporary = self.folder / name, self.folder / f".{name}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error}; free space or choose another folder") from error


def chain_inputs(previous: str, *parts: bytes | str | Tensor) -> str:
    """Digest of what was asked before and what is asked now: bytes, texts, and tensors with their shape and type."""
    digest = hashlib.sha256(previous.encode())
    for part in parts:
        if isinstance(part, Tensor):
            array = part.detach().cpu().contiguous()
            head = f"{array.dtype}{tuple(array.shape)}".encode()
            data = head + array.reshape(-1).view(torch.uint8).numpy().tobytes()
        else:
            data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
