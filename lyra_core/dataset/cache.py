"""Copies of remote files, and what was computed from them, in a local folder of limited size.

Files of a world never change under their key, so a copy is good forever. Several processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from lyra_core.errors import ConfigError, StoreError
from lyra_core.formats.local_store import LocalStore
from lyra_core.formats.store import Store
from lyra_core.formats.store_interface import checked_key

GRACE_S = 60.0  # a file used a moment ago may be about to be opened


class FileCache:
    """Files by name; the least recently used go when the limit is passed.

    Args:
        folder: made where missing; `~/.cache/lyra-worlds` if None.
        max_bytes: the limit. Files used in the last minute stay, so it may be passed for so long.

    Raises:
        ConfigError: a limit that is not positive.
    """

    def __init__(self, folder: str | Path | None = None, *, max_bytes: int = 20_000_000_000) -> None:
        if max_bytes < 1:
            raise ConfigError(f"a cache needs a positive limit in bytes, found {max_bytes}")
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lyra-worlds"
        self.folder = home if folder is None else Path(folder)
        self.max_bytes = max_bytes

    def fetch(self, store: Store, key: str) -> Path:
        """A local file with the content of an object: the object itself where the store is a folder.

        Raises:
            StoreError: the object, or the folder of the cache, cannot be read or written.
        """
        if isinstance(store, LocalStore):
            return Path(store.uri(checked_key(key)))
        digest = hashlib.sha256(store.uri(key).encode()).hexdigest()[:32]
        return self.make(f"{digest}-{key.rpartition('/')[2]}", lambda path: store.get_file(key, path))

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """The file of a name, written by `write` where it is missing; it appears whole or not at all.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self.folder / checked_key(name.replace("/", "_"))
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        unfinished = self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(unfinished)
            unfinished.replace(path)
        except OSError as error:
            raise StoreError(
                f"cannot write the cache {self.folder}: {error.strerror or error}; free space, or choose another "
                "folder with cache=FileCache(folder)"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
        self._evict()
        return path

    def _evict(self) -> None:
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    details = entry.stat()
                    found.append((details.st_mtime, details.st_size, entry.path))
        total, now = sum(size for _, size, _ in found), time.time()
        for used, size, path in sorted(found):
            if total <= self.max_bytes or now - used < GRACE_S:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
