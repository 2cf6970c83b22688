"""Ask a catalog the same question in DuckDB, polars, Hugging Face datasets and Ray Data, whichever are installed.

python examples/query_catalog.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

import importlib.util

from lyra_core import snapshot
from lyra_core.formats.store import open_store

WORLDS = "./worlds"
COLUMNS = ["name", "num_frames", "num_splats", "psnr_db"]  # of the accepted worlds
Rows = list[dict[str, object]]


def in_duckdb(parts: list[str]) -> Rows:
    """SQL; `lyra query` and catalogs.query see uncompacted commits too."""
    import duckdb

    return duckdb.read_parquet(parts).filter("accepted").select(*COLUMNS).to_arrow_table().to_pylist()


def in_polars(parts: list[str]) -> Rows:
    """Lazily: only these columns are read."""
    import polars as pl

    return pl.scan_parquet(parts, glob=False).filter(pl.col("accepted")).select(COLUMNS).collect().to_dicts()


def in_datasets(parts: list[str]) -> Rows:
    """As the configurations of the card (`lyra card`) are loaded."""
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=parts, split="train")
    return rows.filter(lambda row: row["accepted"]).select_columns(COLUMNS).to_list()


def in_ray_data(parts: list[str]) -> Rows:
    """In parallel, on this machine or a cluster."""
    from ray import data

    return data.read_parquet(parts).filter(lambda row: row["accepted"]).select_columns(COLUMNS).take_all()


TOOLS = {"duckdb": in_duckdb, "polars": in_polars, "datasets": in_datasets, "ray": in_ray_data}


def main(worlds: str = WORLDS, tools: tuple[str, ...] = tuple(TOOLS)) -> dict[str, Rows]:
    """The rows that each tool finds, by name."""
    store, found = open_store(worlds), {}
    parts = snapshot.files(store, snapshot.latest(store))
    for tool in (tool for tool in tools if importlib.util.find_spec(tool)):
        found[tool] = sorted(TOOLS[tool](parts), key=lambda row: str(row["name"]))
        print(f"{tool}:", *found[tool], sep="\n  ")
    return found


if __name__ == "__main__":
    main()
