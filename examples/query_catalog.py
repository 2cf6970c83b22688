"""Ask a catalog the same question in DuckDB, polars, Hugging Face datasets and Ray Data, whichever are installed.

python examples/query_catalog.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

import importlib.util

from lyra_core import snapshot
from lyra_core.formats.store import open_store

WORLDS = "./worlds"
COLUMNS = ["name", "num_frames", "num_splats", "psnr_db"]  # of the accepted worlds


def in_duckdb(parts: list[str]) -> list[dict]:
    """SQL; `lyra query` and catalogs.query see uncompacted commits too."""
    import duckdb

    return duckdb.read_parquet(parts).filter("accepted").select(*COLUMNS).to_arrow_table().to_pylist()


def in_polars(parts: list[str]) -> list[dict]:
    """Lazily: only these columns are read."""
    import polars as pl

    return pl.scan_parquet(parts, glob=False).filter(pl.col("accepted")).select(COLUMNS).collect().to_dicts()


def in_datasets(parts: list[str]) -> list[dict]:
    """As the configurations of the card (`lyra card`) are loaded."""
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=parts, split="train").filter(lambda row: row["accepted"])
    return rows.select_columns(COLUMNS).to_list()


def in_ray_data(parts: list[str]) -> list[dict]:
    """In parallel, on this machine or a cluster."""
    from ray import data

    return data.read_parquet(parts).filter(lambda row: row["accepted"]).select_columns(COLUMNS).take_all()


TOOLS = {"duckdb": in_duckdb, "polars": in_polars, "datasets": in_datasets, "ray": in_ray_data}


def main(worlds: str = WORLDS, tools: tuple[str, ...] = tuple(TOOLS)) -> dict[str, list[dict]]:
    """The rows that each tool finds, by name."""
    store, found = open_store(worlds), {}
    parts = snapshot.files(store, snapshot.latest(store))
    for tool in filter(importlib.util.find_spec, tools):
        found[tool] = sorted(TOOLS[tool](parts), key=str)
        print(f"{tool}:", *found[tool], sep="\n  ")
    return found


if __name__ == "__main__":
    main()
