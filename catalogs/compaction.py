"""Gathers commits into few large files: a compaction makes a new immutable version, and touches nothing else.

A version lists the parts of its parent and adds parts with the commits that are not in them yet; when many small
parts have gathered, they are merged; parts with the columns of an older schema are written anew, once, so that all
parts of a version have the same columns. The version's description is created if absent, last: until then nothing is
visible, and of two racing compactors one wins and the other starts over from the winner's version.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalogs.commit import committed_ids, read_commits
from lyra_core import snapshot
from lyra_core.errors import CatalogError
from lyra_core.formats.store import Store
from lyra_core.layout import part_key, snapshot_key
from lyra_core.records import SCHEMA_VERSION, FrameRecord, arrow_schema, utc_now
from lyra_core.snapshot import PartFile, SnapshotRef

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet

_MAX_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionSize:
    """How large parts grow.

    Attributes:
        part_worlds: worlds a part holds, about at most.
        max_small_parts: how many parts with less than half of that may gather before they are merged.
        batch_worlds: commits held in memory at once.
    """

    part_worlds: int = 10_000
    max_small_parts: int = 8
    batch_worlds: int = 500


_DEFAULT_SIZE = CompactionSize()


@dataclass(frozen=True, slots=True)
class _Pair:
    """A part of `worlds` and the part of `frames` with their cameras."""

    worlds: PartFile
    frames: PartFile


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows to be written into one part."""

    num_worlds: int
    worlds: pa.Table
    frames: Iterator[pa.RecordBatch]


def compact(
    store: Store,
    size: CompactionSize = _DEFAULT_SIZE,
    *,
    fault: Callable[[str], None] = lambda _: None,
) -> SnapshotRef | None:
    """Bring the snapshot up to date with the commits; returns the latest version, None if nothing is committed.

    Any number of processes may do this at once. Without new commits nothing is written, unless the latest version has
    an older schema.

    Args:
        store: where the catalog lies.
        size: how large parts grow.
        fault: called with "worlds-part", "frames-part", "before-version" and "after-version" as each is reached, so
            that tests can end the process there.

    Raises:
        CatalogError: a commit or part cannot be read.
        StoreError: the store refused or filled up.
    """
    for _ in range(_MAX_ROUNDS):
        parent = snapshot.latest(store)
        fresh = sorted(committed_ids(store) - compacted_ids(store, parent))
        if not fresh and (parent is None or not _is_outdated(parent)):
            return parent
        version = _next_version(store, parent, fresh, size, fault)
        if version is not None:
            fault("after-version")
            return version
    raise CatalogError(f"{_MAX_ROUNDS} other compactions of {store.root} came first; run fewer at once")


def compacted_ids(store: Store, ref: SnapshotRef | None) -> set[str]:
    """The worlds of a version."""
    return set(snapshot.table(store, ref, "worlds", ["world_id"])["world_id"].to_pylist())


def _next_version(
    store: Store,
    parent: SnapshotRef | None,
    fresh: Sequence[str],
    size: CompactionSize,
    fault: Callable[[str], None],
) -> SnapshotRef | None:
    """Write parts and list them as the next version; None if another compactor was first."""
    number, token = parent.version + 1 if parent else 1, uuid.uuid4().hex
    kept, merged = _split(parent, size)
    with tempfile.TemporaryDirectory(prefix="lyra-compaction-") as folder:
        writer = _PartWriter(store, number, token, Path(folder), fault)
        sources = _sources(store, merged, parent.schema_version if parent else SCHEMA_VERSION, fresh, size)
        new_parts = writer.write(sources, size.part_worlds)
    pairs = [*kept, *new_parts]
    ref = SnapshotRef(
        version=number,
        parent=parent.version if parent else None,
        created_at=utc_now().isoformat(),
        token=token,
        worlds=tuple(pair.worlds for pair in pairs),
        frames=tuple(pair.frames for pair in pairs),
        num_worlds=sum(pair.worlds.rows for pair in pairs),
        num_accepted=0,
        num_frames=sum(pair.frames.rows for pair in pairs),
    )
    accepted = snapshot.table(store, ref, "worlds", ["accepted"])["accepted"]
    ref = replace(ref, num_accepted=accepted.to_pylist().count(True))
    fault("before-version")
    if store.create(snapshot_key(number), ref.to_json()):
        return ref
    if snapshot.read(store, number).token == token:  # ours after all: the reply to it was lost
        return ref
    for pair in new_parts:
        store.delete(pair.worlds.key)
        store.delete(pair.frames.key)
    return None


def _split(parent: SnapshotRef | None, size: CompactionSize) -> tuple[list[_Pair], list[_Pair]]:
    """The parts to list again, and the small or outdated ones to merge with the new commits."""
    pairs = [_Pair(w, f) for w, f in zip(parent.worlds, parent.frames, strict=True)] if parent else []
    if parent is not None and _is_outdated(parent):
        return [], pairs
    small = [pair for pair in pairs if 2 * pair.worlds.rows < size.part_worlds]
    if len(small) < size.max_small_parts:
        return pairs, []
    return [pair for pair in pairs if pair not in small], small


def _is_outdated(ref: SnapshotRef) -> bool:
    """Whether parts of a version may lack columns of today, or hold others."""
    return ref.schema_version < SCHEMA_VERSION


def _sources(
    store: Store, merged: Sequence[_Pair], schema_version: int, fresh: Sequence[str], size: CompactionSize
) -> Iterator[_Source]:
    """Parts to be merged, of one schema version, and commits that are in no part yet."""
    for pair in merged:
        worlds = snapshot.open_parts(store, [pair.worlds.key], "worlds", schema_version).to_table()
        frames = snapshot.open_parts(store, [pair.frames.key], "frames", schema_version).to_batches()
        yield _Source(pair.worlds.rows, worlds, frames)
    for start in range(0, len(fresh), size.batch_worlds):
        worlds, cameras = read_commits(store, fresh[start : start + size.batch_worlds])
        yield _Source(worlds.num_rows, worlds, iter(cameras.combine_chunks().to_batches()))


class _PartWriter:
    """Writes pairs of parts: locally first, then whole into the store."""

    def __init__(self, store: Store, version: int, token: str, folder: Path, fault: Callable[[str], None]) -> None:
        self._store = store
        self._version = version
        self._token = token
        self._folder = folder
        self._fault = fault

    def write(self, sources: Iterator[_Source], part_worlds: int) -> list[_Pair]:
        """All sources, in as few parts as their size allows; cameras of one source at a time are in memory."""
        pairs: list[_Pair] = []
        part = _OpenPart(self._folder)
        for source in sources:
            if part.num_worlds and part.num_worlds + source.num_worlds > part_worlds:
                pairs.append(self._finished(part, len(pairs)))
                part = _OpenPart(self._folder)
            part.add(source)
        return [*pairs, self._finished(part, len(pairs))]

    def _finished(self, part: _OpenPart, number: int) -> _Pair:
        part.close()
        worlds = self._upload("worlds", number, part.worlds_path, part.num_worlds)
        self._fault("worlds-part")
        frames = self._upload("frames", number, part.frames_path, part.num_frames)
        self._fault("frames-part")
        return _Pair(worlds, frames)

    def _upload(self, table: str, number: int, local: Path, rows: int) -> PartFile:
        key = part_key(self._version, f"{table}-{self._token[:12]}-{number:04d}.parquet")
        stored = self._store.put_file(key, local)
        local.unlink()
        return PartFile(key=key, rows=rows, bytes=stored.bytes, sha256=stored.sha256)


class _OpenPart:
    """A pair of local files that grows source by source."""

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet as pq

        self.num_worlds = self.num_frames = 0
        self.worlds_path, self.frames_path = folder / "worlds.parquet", folder / "frames.parquet"
        self._worlds: list[pa.Table] = []
        self._frames = pq.ParquetWriter(self.frames_path, arrow_schema(FrameRecord), compression="zstd")

    def add(self, source: _Source) -> None:
        """Take in the rows of a source."""
        self._worlds.append(source.worlds)
        self.num_worlds += source.num_worlds
        for batch in source.frames:
            self._frames.write_batch(batch)
            self.num_frames += batch.num_rows

    def close(self) -> None:
        """Finish both files; worlds become one row group, which is what their statistics are good for."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._frames.close()
        pq.write_table(pa.concat_tables(self._worlds).combine_chunks(), self.worlds_path, compression="zstd")
