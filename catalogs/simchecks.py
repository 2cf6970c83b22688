"""What a simulator said of worlds: one small file a world beside its commit, replaced when it is tried again.

Commits are never changed; measurements that need a finished world and packages of their own are kept apart from them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lyra_core.errors import CatalogError
from lyra_core.formats.store import Store
from lyra_core.layout import SIMCHECKS, simcheck_key
from lyra_core.records import SimcheckRecord, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 16


def record_simcheck(store: Store, record: SimcheckRecord) -> None:
    """Keep a result in the place of an earlier one of the same world.

    Raises:
        StoreError: the store refused or filled up.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(simcheck_table([record]), sink, use_dictionary=False, write_statistics=False)
    store.put_bytes(simcheck_key(record.world_id), sink.getvalue().to_pybytes())


def list_simchecks(store: Store) -> list[SimcheckRecord]:
    """All results, by world.

    Raises:
        CatalogError: one cannot be read.
    """
    keys = sorted(info.key for info in store.list(SIMCHECKS) if info.key.endswith(".parquet"))
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda key: _read(store, key), keys))


def simcheck_table(records: list[SimcheckRecord]) -> pa.Table:
    """Results as the `simchecks` table."""
    import pyarrow as pa

    return pa.Table.from_pylist([r.to_row() for r in records], schema=arrow_schema(SimcheckRecord))


def _read(store: Store, key: str) -> SimcheckRecord:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        (row,) = pq.read_table(pa.BufferReader(store.read_bytes(key))).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CatalogError(f"the result {store.uri(key)} cannot be read: {error}") from error
    return SimcheckRecord.from_row(row)
