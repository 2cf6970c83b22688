"""SQL over the catalog as of now: `worlds`, `frames`, `rejects` and `simchecks`, in DuckDB, from a disk or a bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalogs.current import read_current, worlds_of
from catalogs.rejects import list_rejects, reject_table
from catalogs.simchecks import list_simchecks, simcheck_table
from lyra_core import snapshot
from lyra_core.errors import CatalogError
from lyra_core.extras import require
from lyra_core.formats.store import Store
from lyra_core.records import FrameRecord, RejectRecord, SimcheckRecord, WorldRecord, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

TABLES = {"worlds": WorldRecord, "frames": FrameRecord, "rejects": RejectRecord, "simchecks": SimcheckRecord}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a catalog holds.

    Attributes:
        worlds: committed worlds.
        accepted: those that passed their quality gates.
        rejects_open: seeds that gave no world and were not made good since.
        uncompacted: commits that are in no snapshot yet.
        snapshot_version: the latest, None before the first compaction.
        bytes: size of all payloads.
        splats: Gaussians of all worlds.
        frames: stored cameras.
    """

    worlds: int
    accepted: int
    rejects_open: int
    uncompacted: int
    snapshot_version: int | None
    bytes: int
    splats: int
    frames: int


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views `worlds`, `frames`, `rejects` (the open ones) and `simchecks` as of now.

    `worlds.drop_test_ok` is that of `simchecks`: it is measured after the commit.

    Bytes are read through pyarrow, so s3:// needs no DuckDB extension.

    Raises:
        CatalogError: the catalog cannot be read.
        MissingExtraError: DuckDB is not installed.
    """
    require("duckdb", "a query of the catalog")
    import duckdb

    current = read_current(store)
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET python_enable_replacements = false")  # a table is a table, not a variable of this program
    simchecks = list_simchecks(store)
    connection.register("simchecks", simcheck_table(simchecks))
    for name, recent in (("worlds", current.recent_worlds), ("frames", current.recent_frames)):
        connection.register(f"{name}_compacted", snapshot.dataset(store, current.ref, name))
        connection.register(f"{name}_recent", recent)
        rows = f"SELECT * FROM {name}_compacted UNION ALL SELECT * FROM {name}_recent"
        if name == "worlds" and simchecks:
            rows = (
                "SELECT w.* REPLACE (s.drop_test_ok AS drop_test_ok) "
                f"FROM ({rows}) AS w LEFT JOIN simchecks AS s USING (world_id)"
            )
        connection.execute(f"CREATE VIEW {name} AS {rows}")
    connection.register("rejects", reject_table(list_rejects(store, current=current)))
    return connection


def query(store: Store, sql: str) -> pa.Table:
    """The result of a SELECT over `worlds`, `frames`, `rejects` and `simchecks`; the statement can reach no file.

    Raises:
        CatalogError: bad SQL, with the tables and columns there are; or the catalog cannot be read.
    """
    require("duckdb", "a query of the catalog")
    import duckdb
    import pyarrow as pa

    connection = connect(store)
    try:
        # Whoever may ask the catalog may not therefore read or write the machine's files.
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        result = connection.sql(sql)
        table = None if result is None else result.to_arrow_table()
    except duckdb.PermissionException as error:
        raise CatalogError(
            f"a query reads {', '.join(TABLES)} and nothing else: it writes no files, reads no others and loads no "
            f"extensions ({error}); write the result elsewhere, for example with --json > FILE, or use "
            f"catalogs.query.connect from Python"
        ) from error
    except (duckdb.Error, pa.ArrowException) as error:
        raise CatalogError(f"the query failed: {error}\n{_tables_named_in(sql)}") from error
    finally:
        connection.close()
    if table is None:
        raise CatalogError(f"the query returns no rows; wanted a SELECT\n{_tables_named_in(sql)}")
    return table


def status(store: Store) -> Status:
    """Counts over the whole catalog.

    Raises:
        CatalogError: the catalog cannot be read.
    """
    import pyarrow.compute as pc

    current = read_current(store)
    worlds = worlds_of(store, current, ["accepted", "num_splats", "artifacts"]).combine_chunks()
    artifacts = pc.list_flatten(worlds["artifacts"])
    compacted_frames = current.ref.num_frames if current.ref else 0
    return Status(
        worlds=worlds.num_rows,
        accepted=pc.sum(worlds["accepted"]).as_py() or 0,
        rejects_open=len(list_rejects(store, current=current)),
        uncompacted=current.recent_worlds.num_rows,
        snapshot_version=current.ref.version if current.ref else None,
        bytes=pc.sum(pc.struct_field(artifacts, "bytes")).as_py() or 0,
        splats=pc.sum(worlds["num_splats"]).as_py() or 0,
        frames=compacted_frames + current.recent_frames.num_rows,
    )


def _tables_named_in(sql: str) -> str:
    """The tables, each with its columns if the statement names it (or names none of them)."""
    named = [name for name in TABLES if re.search(rf"\b{name}\b", sql, re.IGNORECASE)] or list(TABLES)
    lines = [f"{name}: {', '.join(arrow_schema(TABLES[name]).names)}" for name in named]
    others = [name for name in TABLES if name not in named]
    return "\n".join(["tables and columns:", *lines, *([f"also: {', '.join(others)}"] if others else [])])
