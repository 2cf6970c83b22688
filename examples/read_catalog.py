"""Read a catalog with four tools: DuckDB, pyarrow, polars and pandas. A catalog is Parquet; nothing has to run.

python examples/read_catalog.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

import pandas as pd
import polars as pl
from pyarrow import dataset as ds

from catalogs.query import query
from lyra_core import snapshot
from lyra_core.formats.store import open_store

WORLDS = "./worlds"
COLUMNS = ["name", "num_splats", "psnr_db"]


def main(worlds: str = WORLDS) -> dict[str, list[str]]:
    """Names of the accepted worlds, as each tool finds them."""
    store = open_store(worlds)
    parts = snapshot.files(store, snapshot.latest(store))  # addresses of the newest snapshot's Parquet files

    sql = "SELECT name, num_splats, psnr_db FROM worlds WHERE accepted"
    duck = query(store, sql)  # what was committed a second ago too, compacted or not
    arrow = ds.dataset(parts).to_table(columns=COLUMNS, filter=ds.field("accepted"))
    polar = pl.scan_parquet(parts, glob=False).filter(pl.col("accepted")).select(COLUMNS).collect()
    panda = pd.read_parquet(parts, columns=COLUMNS, filters=[("accepted", "==", True)])

    print(polar)
    return {
        "duckdb": sorted(duck["name"].to_pylist()),
        "pyarrow": sorted(arrow["name"].to_pylist()),
        "polars": sorted(polar["name"].to_list()),
        "pandas": sorted(panda["name"].to_list()),
    }


if __name__ == "__main__":
    main()
