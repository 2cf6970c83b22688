"""lyra query: SQL over the catalog."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled

SHOWN_ROWS = 200


def query(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    sql: Annotated[str, typer.Argument(help="DuckDB SQL over the tables worlds, frames, rejects and simchecks.")],
    as_json: AsJson = False,
) -> int:
    """Ask the catalog anything: DuckDB SQL over worlds, frames, rejects and simchecks.

    It reads the catalog and nothing else: no other files, and none are written.

    Examples:

      lyra query ./worlds "SELECT name, num_splats, psnr_db FROM worlds WHERE accepted ORDER BY psnr_db DESC"

      lyra query ./worlds "SELECT stage, count(*) AS n FROM rejects GROUP BY stage" --json
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.query import query as run_query
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    # Where the locale is ASCII, Python hands over letters of the command line as halves of surrogate pairs.
    table = run_query(store, os.fsencode(sql).decode("utf-8", "replace"))
    if as_json:
        print_json(table.rename_columns(_distinct(table.column_names)).to_pylist())
        return 0
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    for name in table.column_names:
        shown.add_column(styled(name))
    for row in zip(*(column.to_pylist() for column in table.slice(0, SHOWN_ROWS).columns), strict=True):
        shown.add_row(*(styled(_cell(value)) for value in row))
    screen = console()
    screen.print(shown)
    if table.num_rows > SHOWN_ROWS:
        screen.print(f"... {table.num_rows - SHOWN_ROWS:,} more rows; add LIMIT, or --json for all")
    return 0


def _distinct(names: list[str]) -> list[str]:
    """Column names as keys of one object: the second `name` of a join becomes name_2."""
    seen: dict[str, int] = {}
    names_so_far = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        names_so_far.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names_so_far


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
