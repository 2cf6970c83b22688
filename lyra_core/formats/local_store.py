"""A store in a folder: files appear by rename or hard link, after their bytes and folders are on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_core.errors import StoreError, StoreRefusedError
from lyra_core.formats.store_interface import (
    HIDDEN_PREFIX,
    READ_BLOCK,
    ObjectInfo,
    Store,
    StoredObject,
    checked_key,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space or choose another output",
    errno.EDQUOT: "the disk quota is used up: free space or choose another output",
    errno.EFBIG: "the file is larger than the file system or the process may write",
    errno.EROFS: "the file system is read-only: mount it writable or choose another output",
    errno.EACCES: "permission denied: give this user write access or choose another output",
    errno.EPERM: "not permitted: give this user write access or choose another output",
    errno.ENOTDIR: "a file stands where a folder is needed: remove it or choose another output",
    errno.EEXIST: "a file stands where a folder is needed: remove it or choose another output",
    errno.EISDIR: "a folder stands where the file should go: remove it or choose another key",
    errno.ENAMETOOLONG: "the path is too long for this file system: choose a shorter output",
    errno.ENOENT: "it does not exist",
}
# A disk that is full or does not answer may recover; these do not change by waiting.
_REFUSALS = set(_REMEDIES) - {errno.ENOSPC, errno.EDQUOT}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore(Store):
    """A folder. It is made by the first write."""

    def __init__(self, root: str | Path, *, fsync: bool = True, **unknown: object) -> None:
        if unknown:
            raise StoreError(f"a local store takes only the option fsync, found {sorted(unknown)}")
        self._root = Path(root).expanduser().absolute()
        self._fsync = bool(fsync)
        self.root = str(self._root)

    def put_file(self, key: str, local_path: str | Path) -> StoredObject:
        """Copy a file in; see Store.put_file."""
        with self._reporting("read", str(local_path)), Path(local_path).open("rb") as source:
            return self._install(checked_key(key), iter(lambda: source.read(READ_BLOCK), b""))

    def put_bytes(self, key: str, data: bytes) -> StoredObject:
        """Write bytes; see Store.put_bytes."""
        return self._install(checked_key(key), iter((data,)))

    def create(self, key: str, data: bytes) -> bool:
        """Hard-link a finished file into place, which fails if the name exists; see Store.create.

        fsspec's mode="create" tests and then writes, so two processes can both succeed with it.

        Raises:
            StoreRefusedError: a file system without hard links.
        """
        target = self._root / checked_key(key)
        with self._reporting("create", key):
            if target.exists():
                self._sync_folder(target.parent)
                return False
            with self._temporary(target, iter((data,))) as (temporary, _, _):
                made = True
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    # NFS may lose the reply to a link that worked; then the link count tells.
                    made = temporary.stat().st_nlink == 2
                except OSError as error:
                    if error.errno in _NO_HARD_LINKS:
                        raise StoreRefusedError(
                            f"{self.root} is on a file system without hard links ({error.strerror}), so racing "
                            "commits cannot be told apart; use another file system or an object store"
                        ) from error
                    raise
                # Also after losing: the winner may not have flushed the name yet, and the caller relies on it.
                self._sync_folder(target.parent)
                return made

    def read_bytes(self, key: str) -> bytes:
        """The file's content."""
        with self._reporting("read", key):
            return (self._root / checked_key(key)).read_bytes()

    def get_file(self, key: str, local_path: str | Path) -> None:
        """Copy a file out; see Store.get_file."""
        destination = Path(local_path)
        with self._reporting("read", key), (self._root / checked_key(key)).open("rb") as source:
            LocalStore(destination.parent, fsync=False)._install(
                destination.name, iter(lambda: source.read(READ_BLOCK), b"")
            )

    def info(self, key: str) -> ObjectInfo | None:
        """Size and modification time."""
        try:
            status = (self._root / checked_key(key)).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explained("look up", key, error) from error
        if not os.path.isfile(self._root / key):  # noqa: PTH113 - a folder is no object
            return None
        return ObjectInfo(key=key, bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo]:
        """Files below the root whose relative path starts with the prefix."""
        folder, _, start = prefix.rpartition("/")
        with self._reporting("list", prefix):
            yield from _scan(self._root / folder, f"{folder}/" if folder else "", start, recursive)

    def delete(self, key: str) -> None:
        """Remove a file if it exists."""
        with self._reporting("delete", key):
            (self._root / checked_key(key)).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        """The absolute path."""
        return str(self._root / key)

    def arrow_filesystem(self) -> FileSystem:
        """A sub-tree of pyarrow's local file system."""
        from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

        return SubTreeFileSystem(self.root, LocalFileSystem())

    def sweep(self, older_than_s: float = 86_400.0) -> int:
        """Remove unfinished files that killed writers left behind; returns how many."""
        removed = 0
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                if name.startswith(HIDDEN_PREFIX) and time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _install(self, key: str, blocks: Iterator[bytes]) -> StoredObject:
        target = self._root / key
        with (
            self._reporting("write", key),
            self._temporary(target, blocks) as (temporary, size, sha256),
        ):
            temporary.replace(target)
            self._sync_folder(target.parent)
            if target.stat().st_size != size:
                raise StoreError(f"{target} holds {target.stat().st_size} bytes after {size} were written")
        return StoredObject(key=key, uri=str(target), bytes=size, sha256=sha256)

    @contextlib.contextmanager
    def _temporary(self, target: Path, blocks: Iterator[bytes]) -> Iterator[tuple[Path, int, str]]:
        """A flushed file beside the target, with its size and digest; gone when the block ends."""
        self._make_folder(target.parent)
        temporary = target.parent / f"{HIDDEN_PREFIX}{uuid.uuid4().hex}"
        digest, size = hashlib.sha256(), 0
        try:
            with temporary.open("xb") as sink:
                for block in blocks:
                    digest.update(block)
                    sink.write(block)
                    size += len(block)
                sink.flush()
                if self._fsync:
                    os.fsync(sink.fileno())
            yield temporary, size, digest.hexdigest()
        finally:
            temporary.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir() and folder != folder.parent:
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._sync_folder(path.parent)

    def _sync_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _reporting(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explained(action, key, error) from error

    def _explained(self, action: str, key: str, error: OSError) -> StoreError:
        remedy = _REMEDIES.get(error.errno or 0, "see the cause")
        kind = StoreRefusedError if error.errno in _REFUSALS else StoreError
        return kind(f"cannot {action} {self._root / key}: {error.strerror or error}; {remedy}")


def _scan(folder: Path, below: str, start: str, recursive: bool) -> Iterator[ObjectInfo]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if not entry.name.startswith(start) or entry.name.startswith(HIDDEN_PREFIX):
            continue
        if entry.is_dir():
            if recursive:
                yield from _scan(Path(entry.path), f"{below}{entry.name}/", "", recursive)
            continue
        with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
            status = entry.stat()
            yield ObjectInfo(key=f"{below}{entry.name}", bytes=status.st_size, mtime_ns=status.st_mtime_ns)
