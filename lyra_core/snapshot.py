"""Reading the catalog as it was at one moment: immutable numbered versions, each an exact list of Parquet parts.

Read the parts a version lists, never a glob: a compaction that was killed leaves part files that belong to nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lyra_core.errors import CatalogError
from lyra_core.formats.store import Store
from lyra_core.layout import SNAPSHOTS, snapshot_key
from lyra_core.records import RENAMED, SCHEMA_VERSION, FrameRecord, WorldRecord, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset

_VERSION = re.compile(rf"{SNAPSHOTS}v(\d+)\.json")
TABLES = {"worlds": WorldRecord, "frames": FrameRecord}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """One Parquet file of a snapshot."""

    key: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRef:
    """A version of the catalog.

    Attributes:
        version: 1, 2, 3, ...
        parent: the version it grew from, None for the first.
        created_at: ISO 8601, UTC.
        token: unique to the compaction that made it.
        worlds: parts of the `worlds` table.
        frames: parts of the `frames` table; the i-th holds the cameras of the worlds in the i-th of `worlds`.
        num_worlds: rows of all parts of `worlds`.
        num_accepted: those that passed their quality gates.
        num_frames: rows of all parts of `frames`.
        schema_version: of the columns.
    """

    version: int
    parent: int | None
    created_at: str
    token: str
    worlds: tuple[PartFile, ...]
    frames: tuple[PartFile, ...]
    num_worlds: int
    num_accepted: int
    num_frames: int
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """As stored."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> SnapshotRef:
        """As stored.

        Raises:
            CatalogError: malformed, or written by a newer version of this software.
        """
        try:
            content: dict[str, Any] = json.loads(data)
            if content["schema_version"] > SCHEMA_VERSION:
                raise CatalogError(
                    f"the snapshot {where} has schema version {content['schema_version']}, and this version of "
                    f"lyra-worlds reads up to {SCHEMA_VERSION}; upgrade lyra-worlds"
                )
            for table in TABLES:
                content[table] = tuple(PartFile(**part) for part in content[table])
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogError(f"the snapshot {where} cannot be read: {error!r}") from error


def versions(store: Store) -> list[int]:
    """The versions there are, oldest first."""
    keys = (info.key for info in store.list(f"{SNAPSHOTS}v", recursive=False))
    return sorted(int(match[1]) for key in keys if (match := _VERSION.fullmatch(key)))


def latest(store: Store) -> SnapshotRef | None:
    """The newest version, or None before the first compaction."""
    numbers = versions(store)
    return read(store, numbers[-1]) if numbers else None


def read(store: Store, version: int) -> SnapshotRef:
    """One version.

    Raises:
        CatalogError: there is no such version, or it cannot be read.
    """
    key = snapshot_key(version)
    if not store.exists(key):
        known = versions(store)
        there = f"there are {known[0]} to {known[-1]}" if known else "there is none yet: compact first"
        raise CatalogError(f"{store.root} has no snapshot of version {version}; {there}")
    return SnapshotRef.from_json(store.read_bytes(key), store.uri(key))


def files(store: Store, ref: SnapshotRef, table: str = "worlds") -> list[str]:
    """Addresses of the parts of a table, for any Parquet reader.

    Raises:
        CatalogError: no such table.
    """
    return [store.uri(part.key) for part in _parts(ref, table)]


def dataset(store: Store, ref: SnapshotRef | None, table: str = "worlds") -> pyarrow.dataset.Dataset:
    """A table of a version, to be scanned with column and row filters; empty if `ref` is None.

    Raises:
        CatalogError: no such table.
    """
    from pyarrow import dataset as ds

    parts = _parts(ref, table) if ref else ()
    if ref is None or not parts:
        return ds.dataset(arrow_schema(TABLES[table]).empty_table())
    return open_parts(store, [part.key for part in parts], table, ref.schema_version)


def open_parts(store: Store, keys: Sequence[str], table: str, schema_version: int) -> pyarrow.dataset.Dataset:
    """Parts of a table with the columns of today's schema, whatever the one they were written with.

    Args:
        store: where they lie.
        keys: of parts that were written with one schema.
        table: "worlds" or "frames".
        schema_version: theirs.
    """
    import pyarrow as pa
    from pyarrow import dataset as ds

    schema, filesystem = arrow_schema(TABLES[table]), store.arrow_filesystem()
    former = {new: old for old, new in RENAMED.items()}
    if schema_version >= SCHEMA_VERSION or not set(former) & set(schema.names):
        return ds.dataset(list(keys), schema=schema, format="parquet", filesystem=filesystem)
    stored = pa.schema([field.with_name(former.get(field.name, field.name)) for field in schema])
    rows = ds.dataset(list(keys), schema=stored, format="parquet", filesystem=filesystem).to_table()
    return ds.dataset(rows.rename_columns(schema.names))


def worlds(store: Store, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The `worlds` table as of a version, the latest if None; empty before the first compaction.

    Raises:
        CatalogError: there is no such version, or a part cannot be read.
    """
    return table(store, latest(store) if version is None else read(store, version), "worlds", columns)


def frames(store: Store, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The `frames` table; see `worlds`."""
    return table(store, latest(store) if version is None else read(store, version), "frames", columns)


def table(store: Store, ref: SnapshotRef | None, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of a version in memory.

    Raises:
        CatalogError: no such table, or a part cannot be read.
    """
    import pyarrow as pa

    try:
        return dataset(store, ref, name).to_table(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        version = ref.version if ref else 0
        raise CatalogError(f"the table {name} of snapshot {version} in {store.root} cannot be read: {error}") from error


def _parts(ref: SnapshotRef, table: str) -> tuple[PartFile, ...]:
    if table not in TABLES:
        raise CatalogError(f"a snapshot has the tables {', '.join(TABLES)}; found {table!r}")
    return ref.worlds if table == "worlds" else ref.frames
