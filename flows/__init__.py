"""Prefect flows and recipes; generate.py is the file to read first."""

from lyra_core.extras import require

# What no command works without; Ray and DuckDB are asked for where they are used.
for _package in ("typer", "rich", "pydantic", "prefect", "psutil"):
    require(_package, "the command `lyra`", extra="factory")
