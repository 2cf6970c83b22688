"""A world exists from the moment its commit object does: one Parquet row, created if absent, after its payloads.

The key holds only the world id, so a retried or doubled world finds its commit and is done: exactly once per id,
without a coordinator. Run and attempt are columns. Commits are never changed and never deleted.

The row keeps the world as one JSON column next to a few plain ones, and its cameras as a nested list: a Parquet file
of a hundred columns and one row costs 4 ms to open, this one a tenth of that, and ten thousand of them are read at
each compaction. The wide tables are what snapshots and queries show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
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


class CommitOutcome(StrEnum):
    """What a commit found: it made the row, or the world was there already."""

    CREATED = "created"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A committed world with its cameras."""

    world: WorldRecord
    frames: tuple[FrameRecord, ...]


def commit(store: Store, record: WorldRecord, frames: Sequence[FrameRecord] | None = None) -> CommitOutcome:
    """Make a world exist, once its payloads are in the store.

    Raises:
        CatalogError: an artifact is missing or has another size than its record says, or frames of another world.
        StoreError: the store refused or filled up.
    """
    key = commit_key(record.world_id)
    if store.exists(key):
        return CommitOutcome.EXISTS
    foreign = {frame.world_id for frame in frames or ()} - {record.world_id}
    if foreign:
        raise CatalogError(f"world {record.world_id} cannot be committed with frames of {sorted(foreign)}")
    _require_payloads(store, record)
    created = store.create(key, _encode(record, frames or ()))
    return CommitOutcome.CREATED if created else CommitOutcome.EXISTS


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
        found = pool.map(lambda world_id: (world_id, _read(store, world_id)), world_ids)
        rows = [_decode(store, world_id, data) for world_id, data in found]
    packed = pa.concat_tables(rows) if rows else _commit_schema().empty_table()
    records = [WorldRecord.row_from_json(text) for text in packed["world"].to_pylist()]
    return pa.Table.from_pylist(records, schema=arrow_schema(WorldRecord)), _frames_of(packed)


def _require_payloads(store: Store, record: WorldRecord) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda artifact: store.info(artifact.key), record.artifacts))
    problems = [
        f"{artifact.key}: wanted {artifact.bytes} bytes, found {'nothing' if info is None else info.bytes}"
        for artifact, info in zip(record.artifacts, found, strict=True)
        if info is None or info.bytes != artifact.bytes
    ]
    if problems:
        raise CatalogError(
            f"world {record.world_id} cannot be committed before its payloads are stored: "
            f"{'; '.join(problems)}; upload them again"
        )


@lru_cache
def _commit_schema() -> pa.Schema:
    import pyarrow as pa

    frame = pa.struct([f for f in arrow_schema(FrameRecord) if f.name != "world_id"])
    worlds = arrow_schema(WorldRecord)
    plain = [worlds.field(name) for name in ("world_id", "schema_version", "run_id", "attempt", "accepted")]
    return pa.schema(
        [f.remove_metadata() for f in plain]
        + [pa.field("world", pa.string(), nullable=False), pa.field("frames", pa.list_(frame))]
    )


def _encode(record: WorldRecord, frames: Sequence[FrameRecord]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {name: getattr(record, name, None) for name in _commit_schema().names}
    row["world"] = record.to_json()
    row["frames"] = [
        {f.name: getattr(frame, f.name) for f in fields(frame) if f.name != "world_id"} for frame in frames
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist([row], schema=_commit_schema()),
        sink,
        compression="zstd",
        use_dictionary=False,  # one row has nothing to share
        write_statistics=False,
    )
    return sink.getvalue().to_pybytes()


def _read(store: Store, world_id: str) -> bytes:
    try:
        return store.read_bytes(commit_key(world_id))
    except StoreError as error:
        if store.exists(commit_key(world_id)):
            raise
        raise CatalogError(f"world {world_id} is not committed in {store.root}") from error


def _decode(store: Store, world_id: str, data: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _commit_schema()
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        if table.schema != schema:
            table = table.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CatalogError(f"the commit {store.uri(commit_key(world_id))} cannot be read: {error}") from error
    if table.num_rows != 1 or table["world_id"][0].as_py() != world_id:
        raise CatalogError(
            f"the commit {store.uri(commit_key(world_id))} should hold the one row of its world, and does not"
        )
    return table


def _frames_of(packed: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    frames = packed["frames"].combine_chunks()
    flat = pc.list_flatten(frames)
    worlds = packed["world_id"].combine_chunks().take(pc.list_parent_indices(frames))
    schema = arrow_schema(FrameRecord)
    columns = [worlds if name == "world_id" else pc.struct_field(flat, name) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)
