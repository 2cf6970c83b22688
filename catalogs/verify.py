"""Compares stored files with what the catalog says of them: that each exists, its size, and its bytes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from catalogs.current import read_current, worlds_of
from lyra_core.formats.store import Store, file_sha256

_THREADS = 8
_COLUMNS = ("world_id", "artifacts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A stored file that is not what its row says."""

    world_id: str
    key: str
    problem: str


def verify(
    store: Store, *, sizes_only: bool = False, on_file: Callable[[int], None] = lambda _: None
) -> list[Mismatch]:
    """Every file of every committed world whose existence, size or SHA-256 differs from its row.

    Args:
        store: of the catalog.
        sizes_only: ask for sizes instead of reading the files.
        on_file: called with the number of files looked at, for progress.

    Raises:
        CatalogError, StoreError: the catalog or the store cannot be read.
    """
    rows = worlds_of(store, read_current(store), _COLUMNS).to_pylist()
    files = ((row["world_id"], artifact) for row in rows for artifact in row["artifacts"] or ())
    mismatches: list[Mismatch] = []
    done = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        while batch := list(islice(files, 16 * _THREADS)):
            for (world_id, artifact), problem in zip(
                batch, threads.map(lambda file: _problem(store, file[1], sizes_only), batch), strict=True
            ):
                done += 1
                if problem is not None:
                    mismatches.append(Mismatch(world_id=world_id, key=artifact["key"], problem=problem))
            on_file(done)
    return mismatches


def _problem(store: Store, artifact: dict[str, Any], sizes_only: bool) -> str | None:
    info = store.info(artifact["key"])
    if info is None:
        return "does not exist"
    if info.bytes != artifact["bytes"]:
        return f"has {info.bytes} bytes, the row says {artifact['bytes']}"
    if sizes_only:
        return None
    digest, recorded = _sha256(store, artifact["key"], info.bytes), artifact["sha256"]
    return None if digest == recorded else f"has SHA-256 {digest[:12]}, the row says {recorded[:12]}"


def _sha256(store: Store, key: str, size: int) -> str:
    """Small files through memory, large ones through a local file."""
    if size <= 32 << 20:
        return hashlib.sha256(store.read_bytes(key)).hexdigest()
    with tempfile.TemporaryDirectory(prefix="lyra-verify-") as folder:
        store.get_file(key, Path(folder) / "file")
        return file_sha256(Path(folder) / "file")
