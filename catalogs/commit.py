"""A world exists from the moment its commit object does: one Parquet row, created if absent, after its payloads.

The key holds only the world id, so a retried or doubled world finds its commit and is done: exactly once per id,
without a coordinator. Run and attempt are columns. Commits are never changed and never deleted.

Payloads lie in a folder that only their own writer knows (lyra_core.layout.upload_prefix), so what a commit names is
never overwritten. Whoever comes second removes its own folder; one that died before leaves it to catalogs.garbage.

The row has three columns: `world_id`, `world` (every known column of `worlds`, as JSON) and `frames` (the cameras, as
an Arrow IPC stream). Each Parquet column costs some 0.06 ms to open, so a row of a hundred of them takes 4 ms to read
and this one a tenth of that, and ten thousand are read at each compaction. Snapshots and queries show the wide tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from lyra_core.errors import CatalogError, StoreError
from lyra_core.formats.store import Store
from lyra_core.layout import COMMITS, commit_key
from lyra_core.records import FrameRecord, WorldRecord, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 16
_COLUMNS = ("world_id", "world", "frames")


class CommitOutcome(StrEnum):
    """What a commit found: it made the row, or the world was there already."""

    CREATED = "created"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A committed world with its cameras."""

    world: WorldRecord
    frames: tuple[FrameRecord, ...]


def commit(store: Store, record: WorldRecord, frames: pa.Table | None = None) -> CommitOutcome:
    """Make a world exist, once its payloads are in the store.

    Args:
        store: where.
        record: the world.
        frames: its cameras, as lyra_core.frame_table makes them.

    Returns:
        CREATED if the commit is this record's, also where the reply to an earlier try was lost.

    Raises:
        CatalogError: frames of another world.
        StoreError: the store refused or filled up, or does not hold an artifact as its record says.
    """
    key = commit_key(record.world_id)
    if store.exists(key):
        return _whose(store, record)
    cameras = _cameras_schema().empty_table() if frames is None else _conformed(frames)
    foreign = set(cameras["world_id"].unique().to_pylist()) - {record.world_id}
    if foreign:
        raise CatalogError(f"world {record.world_id} cannot be committed with frames of {sorted(foreign)}")
    _require_payloads(store, record)
    created = store.create(key, _encode(record, cameras))
    return CommitOutcome.CREATED if created else _whose(store, record)


def _whose(store: Store, record: WorldRecord) -> CommitOutcome:
    """Whether an existing commit names the files of this record: no other writer has a folder of this name."""
    if record.folder is None:
        return CommitOutcome.EXISTS
    committed_folder = read_commit(store, record.world_id).world.folder
    return CommitOutcome.CREATED if committed_folder == record.folder else CommitOutcome.EXISTS


def is_committed(store: Store, world_id: str) -> bool:
    """Whether the world exists."""
    return store.exists(commit_key(world_id))


def committed_ids(store: Store) -> set[str]:
    """The ids of all worlds, by listing; nothing is read."""

    def below(digit: str) -> list[str]:
        return [info.key[-40:-8] for info in store.list(f"{COMMITS}{digit}") if info.key.endswith(".parquet")]

    with ThreadPoolExecutor(_THREADS) as pool:
        return {world_id for ids in pool.map(below, "0123456789abcdef") for world_id in ids}


def read_commit(store: Store, world_id: str) -> Commit:
    """The committed world.

    Raises:
        CatalogError: it is not committed, or its row cannot be read.
    """
    worlds, frames = read_commits(store, [world_id])
    return Commit(
        world=WorldRecord.from_row(worlds.to_pylist()[0]),
        frames=tuple(FrameRecord.from_row(row) for row in frames.to_pylist()),
    )


def read_commits(store: Store, world_ids: Iterable[str]) -> tuple[pa.Table, pa.Table]:
    """The `worlds` and `frames` tables of some committed worlds, in the order of the ids.

    Raises:
        CatalogError: a commit is missing or cannot be read.
    """
    import pyarrow as pa

    # Threads overlap the waiting of the reads; decoding is one thread's work under the interpreter's lock.
    with ThreadPoolExecutor(_THREADS) as pool:
        rows_read = pool.map(lambda world_id: (world_id, _read(store, world_id)), world_ids)
        rows = [_decode(store, world_id, data) for world_id, data in rows_read]
    records = [WorldRecord.row_from_json(text) for text, _ in rows]
    frames = pa.concat_tables([_cameras_schema().empty_table(), *(frames for _, frames in rows)])
    return (
        pa.Table.from_pylist(records, schema=arrow_schema(WorldRecord)),
        pa.Table.from_arrays(frames.columns, schema=arrow_schema(FrameRecord)),
    )


def _require_payloads(store: Store, record: WorldRecord) -> None:
    if not record.artifacts:
        return
    with ThreadPoolExecutor(min(8, len(record.artifacts))) as pool:
        infos = list(pool.map(lambda artifact: store.info(artifact.key), record.artifacts))
    problems = [
        f"{artifact.key}: wanted {artifact.bytes} bytes, found {'nothing' if info is None else info.bytes}"
        for artifact, info in zip(record.artifacts, infos, strict=True)
        if info is None or info.bytes != artifact.bytes
    ]
    if problems:
        raise StoreError(
            f"world {record.world_id} cannot be committed before its payloads are stored: "
            f"{'; '.join(problems)}; upload them again"
        )


def _encode(record: WorldRecord, cameras: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream, sink = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, cameras.schema) as writer:
        writer.write_table(cameras)
    row = {
        "world_id": pa.array([record.world_id]),
        "world": pa.array([record.to_json()]),
        "frames": pa.array([stream.getvalue().to_pybytes()], pa.binary()),
    }
    # One row has nothing to share between rows and nothing to skip by statistics.
    pq.write_table(pa.table(row), sink, compression="zstd", use_dictionary=False, write_statistics=False)
    return sink.getvalue().to_pybytes()


def _read(store: Store, world_id: str) -> bytes:
    try:
        return store.read_bytes(commit_key(world_id))
    except StoreError as error:
        if store.exists(commit_key(world_id)):
            raise
        raise CatalogError(f"world {world_id} is not committed in {store.root}") from error


def _decode(store: Store, world_id: str, data: bytes) -> tuple[str, pa.Table]:
    """The JSON of the world and the table of its cameras."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        found_id, text, stream = (table[name].to_pylist()[0] for name in _COLUMNS)
        cameras = _conformed(pa.ipc.open_stream(stream).read_all())
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise CatalogError(f"the commit {store.uri(commit_key(world_id))} cannot be read: {error}") from error
    if found_id != world_id:
        raise CatalogError(f"the commit {store.uri(commit_key(world_id))} holds the world {found_id}")
    return text, cameras


@lru_cache
def _cameras_schema() -> pa.Schema:
    """The columns of `frames` without their descriptions, which would be stored in every commit."""
    import pyarrow as pa

    return pa.schema([field.remove_metadata() for field in arrow_schema(FrameRecord)])


def _conformed(cameras: pa.Table) -> pa.Table:
    """With the columns of this version: unknown ones dropped, missing ones null."""
    import pyarrow as pa

    schema = _cameras_schema()
    if cameras.schema.equals(schema):
        return cameras
    present = [
        cameras[f.name].cast(f.type) if f.name in cameras.column_names else pa.nulls(cameras.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(present, schema=schema)
