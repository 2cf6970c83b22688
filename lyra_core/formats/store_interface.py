"""Whole objects under a URL: the one way bytes reach a disk or a bucket, so that nothing is ever half-seen.

A key is a relative path with forward slashes. An object appears complete or not at all: files are written beside
their place, flushed and renamed; remote objects are sent in one request or one multipart upload. `create` is the
only primitive that two writers may race for, and exactly one of them wins.
"""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_core.errors import StoreError, StoreRefusedError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

READ_BLOCK = 4 << 20
HIDDEN_PREFIX = ".lyra-"  # unfinished files and probes: never listed, and no key of anybody else
PROBE_PREFIX = f"{HIDDEN_PREFIX}probe-"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One finished upload.

    Attributes:
        key: path relative to the store's root.
        uri: the full address.
        bytes: size.
        sha256: digest of the bytes that were sent, hex.
        etag: the store's own tag, empty on file systems.
    """

    key: str
    uri: str
    bytes: int
    sha256: str
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object as a listing shows it: its key, size in bytes, and the tag or time that changes with its content."""

    key: str
    bytes: int
    etag: str = ""
    mtime_ns: int | None = None

    @property
    def stamp(self) -> str:
        """The etag where there is one, else the modification time: equal stamps and sizes mean equal bytes."""
        return self.etag or str(self.mtime_ns)


class Store(ABC):
    """Objects by key below one root URL. Instances may be shared between threads and pickled to other processes."""

    root: str

    @abstractmethod
    def put_file(self, key: str, local_path: str | Path) -> StoredObject:
        """Upload a file whole, replacing any object of this key, and check what arrived.

        Raises:
            StoreError: the store refused, filled up, or holds something else than was sent.
        """

    @abstractmethod
    def put_bytes(self, key: str, data: bytes) -> StoredObject:
        """Like `put_file`, from memory."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless its key exists; of any number of racing writers exactly one gets True.

        A reply lost on the network may turn the winner's True into False; who must know puts a token into `data`.

        Raises:
            StoreError: the store refused or filled up.
        """

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """The object's content.

        Raises:
            StoreError: no such object, or the store cannot be read.
        """

    @abstractmethod
    def get_file(self, key: str, local_path: str | Path) -> None:
        """Download an object; the local file appears complete or not at all."""

    @abstractmethod
    def info(self, key: str) -> ObjectInfo | None:
        """Size and tag of one object, or None where there is none."""

    @abstractmethod
    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, page by page, in no promised order.

        Without `recursive`, only those with no further slash behind the prefix.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object if it exists. Only for unfinished work of the caller's own and for tests."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """The full address of a key."""

    @abstractmethod
    def arrow_filesystem(self) -> FileSystem:
        """A pyarrow file system in which the keys of this store are paths."""

    def exists(self, key: str) -> bool:
        """Whether the key has an object."""
        return self.info(key) is not None

    def size(self, key: str) -> int:
        """Bytes of an object.

        Raises:
            StoreError: no such object.
        """
        info = self.info(key)
        if info is None:
            raise StoreError(f"wanted the size of {self.uri(key)}, but there is no such object")
        return info.bytes

    def check_writable(self) -> None:
        """Write, read and remove a small probe object.

        Raises:
            StoreError: with the URL, the cause and the remedy.
        """
        key, data = f"{PROBE_PREFIX}{uuid.uuid4().hex}", b"probe"
        self.put_bytes(key, data)
        stored = self.read_bytes(key)
        self.delete(key)
        if stored != data:
            raise StoreError(f"{self.root} returned other bytes than were just written; do not use this store")

    def supports_conditional_create(self) -> bool:
        """Whether a second `create` of one key is turned away (some S3 look-alikes overwrite instead).

        Raises:
            StoreError: the probe cannot be written or read.
        """
        key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
        outcomes = (self.create(key, b"first"), self.create(key, b"second"))
        stored = self.read_bytes(key)
        self.delete(key)
        return outcomes == (True, False) and stored == b"first"

    def require_conditional_create(self) -> None:
        """Refuse a store on which two workers could both commit one world.

        Raises:
            StoreRefusedError: `create` overwrites here.
        """
        if not self.supports_conditional_create():
            raise StoreRefusedError(
                f"{self.root} ignores conditional writes (If-None-Match: *), so a world could be committed twice; "
                "use AWS S3, SeaweedFS 4.48 or later, another store with conditional PUT, or a local path"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"


def checked_key(key: str) -> str:
    """The key itself, if it is a relative path that cannot leave the root.

    Raises:
        StoreError: empty, absolute, with empty or dotted segments, backslashes, NUL, or a reserved name.
    """
    segments = key.split("/")
    bad = any(s in ("", ".", "..") for s in segments) or (
        any(s.startswith(HIDDEN_PREFIX) for s in segments) and not key.startswith(PROBE_PREFIX)
    )
    if bad or "\\" in key or "\0" in key or "://" in key:
        raise StoreError(
            f"a key is a relative path like worlds/ab/abc/world.ply (no '..', no empty part, no backslash, "
            f"no name starting with {HIDDEN_PREFIX!r}), found {key!r}"
        )
    return key


def file_sha256(path: str | Path) -> str:
    """Hex digest of a local file, read in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as source:
        while block := source.read(READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()
