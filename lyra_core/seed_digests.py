"""Remembers digests of seed files between plans, so that planning a million seeds twice reads them once."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from lyra_core.errors import LyraWarning, SeedError, SourceError
from lyra_core.public_uri import public_uri
from lyra_core.seed_source import digest_seed, is_chain, local_path, seed_info

# A file changed within the clock's granularity keeps its stamp, so a digest taken right after a change proves little.
_SETTLED_NS = 2_000_000_000
S = TypeVar("S")
T = TypeVar("T")
_VARIABLES = 500  # SQLite allows 999 in one statement where it is old
_BLOCK = 64


class SeedDigestCache:
    """SHA-256 by (URI, size, stamp), where the stamp is an etag or a modification time.

    Any number of processes may share one cache file. A damaged or unusable file costs time, not correctness: the
    cache warns once and then remembers nothing. Files are known by their public URI: a signature is never stored, and
    a seed signed again is the same seed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._usable = True

    def digest(self, uri: str, size: int, stamp: str, compute: Callable[[], str]) -> str:
        """The remembered digest, or the computed one, which is then remembered."""
        known = self.get(uri, size, stamp)
        if known is None:
            known = compute()
            self.put(uri, size, stamp, known)
        return known

    def get(self, uri: str, size: int, stamp: str) -> str | None:
        """The digest of a file seen before with this size and stamp, or None."""
        row = self._run(
            "SELECT sha256 FROM digests WHERE uri = ? AND size = ? AND stamp = ?",
            (uri, size, stamp),
        )
        return str(row[0]) if row else None

    def put(self, uri: str, size: int, stamp: str, sha256: str) -> None:
        """Remember a digest; one URI has one entry."""
        self._run("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (uri, size, stamp, sha256))

    def digest_file(self, uri: str) -> str:
        """The digest of a local file or an object at any fsspec URL, read only if it changed.

        Raises:
            SeedError: it is missing or cannot be a seed. SourceError: its storage is at fault.
        """
        status = _stat(uri)
        if status is None:
            return digest_seed(uri)
        size, stamp = status
        return self.digest(public_uri(uri), size, stamp, lambda: digest_seed(uri))

    def digest_files(self, uris: Sequence[str], executor: Executor) -> list[str | SeedError | SourceError]:
        """digest_file of many at once, in order: one look-up and one transaction, files read side by side.

        A file that cannot be read gives its SeedError or SourceError instead of a digest.
        """
        stats = _in_blocks(executor, _stat, uris)
        names = [public_uri(uri) for uri in uris]
        known = self._known(names)

        def find(index: int) -> str | SeedError | SourceError:
            stat = stats[index]
            if stat is not None and known.get(names[index], ())[:2] == stat:
                return str(known[names[index]][2])
            try:
                return digest_seed(uris[index])
            except (SeedError, SourceError) as error:
                return error

        digests = _in_blocks(executor, find, range(len(uris)))
        self._remember(
            [
                (name, *stat, sha256)
                for name, stat, sha256 in zip(names, stats, digests, strict=True)
                if stat is not None and isinstance(sha256, str) and known.get(name, ())[:2] != stat
            ]
        )
        return digests

    def _known(self, uris: Sequence[str]) -> dict[str, tuple[int, str, str]]:
        def look_up(database: sqlite3.Connection) -> dict[str, tuple[int, str, str]]:
            rows: dict[str, tuple[int, str, str]] = {}
            for start in range(0, len(uris), _VARIABLES):
                some = list(uris[start : start + _VARIABLES])
                marks = ",".join("?" * len(some))
                statement = f"SELECT uri, size, stamp, sha256 FROM digests WHERE uri IN ({marks})"
                rows |= {uri: (size, stamp, sha256) for uri, size, stamp, sha256 in database.execute(statement, some)}
            return rows

        return self._transact(look_up) or {}

    def _remember(self, rows: list[tuple[str, int, str, str]]) -> None:
        if rows:
            self._transact(lambda d: d.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", rows))

    def _run(self, statement: str, values: tuple[str | int, ...]) -> tuple[object, ...] | None:
        return self._transact(lambda database: database.execute(statement, values).fetchone())

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run one transaction; None once the file has proved unusable."""
        if not self._usable:
            return None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=30.0)) as database, database:
                database.execute("PRAGMA synchronous = OFF")  # a cache may be lost with the power
                database.execute(
                    "CREATE TABLE IF NOT EXISTS digests "
                    "(uri TEXT PRIMARY KEY, size INTEGER, stamp TEXT, sha256 TEXT) WITHOUT ROWID"
                )
                return work(database)
        except (sqlite3.Error, OSError) as error:
            self._usable = False
            warnings.warn(
                f"the seed digest cache {self.path} cannot be used ({error}) and is ignored; "
                "delete it to have it built again",
                LyraWarning,
                stacklevel=3,
            )
            return None


def _in_blocks(executor: Executor, function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """executor.map in blocks, since handing over one small file costs more than reading it."""
    blocks = [items[start : start + _BLOCK] for start in range(0, len(items), _BLOCK)]
    return [result for block in executor.map(lambda block: [function(i) for i in block], blocks) for result in block]


def _stat(uri: str) -> tuple[int, str] | None:
    """Size and stamp, or None where they cannot be trusted to tell a change."""
    path = local_path(uri)
    if path is not None:
        try:
            status = Path(path).stat()
        except (OSError, ValueError):  # a name with NUL is a ValueError; reading it says so
            return None
        if time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
            return None
        return status.st_size, str(status.st_mtime_ns)
    if is_chain(uri):
        return None
    try:
        info = seed_info(uri)
    except (SeedError, SourceError):
        return None  # reading it says why
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    changed = info.get("LastModified") or info.get("mtime") or info.get("created")
    stamp = etag or (str(int(changed.timestamp() * 1e9)) if isinstance(changed, datetime) else "")
    return (int(info.get("size") or 0), stamp) if stamp else None
