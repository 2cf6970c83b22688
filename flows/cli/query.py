"""lyra query: SQL over the catalog."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json

SHOWN_ROWS = 200


def query(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    sql: Annotated[str, typer.Argument(help="DuckDB SQL over the tables worlds, frames and rejects.")],
    as_json: AsJson = False,
) -> int:
    """Ask the catalog anything: DuckDB SQL over worlds, frames and rejects.

    Examples:

      lyra query ./worlds "SELECT name, num_splats, psnr_db FROM worlds WHERE accepted ORDER BY psnr_db DESC"

      lyra query ./worlds "SELECT stage, count(*) AS n FROM rejects GROUP BY stage" --json
    """
    choose_json(as_json)
    from catalogs.query import query as run_query
    from lyra_core.formats.store import open_store

    table = run_query(open_store(uri), sql)
    rows = table.to_pylist()
    if as_json:
        print_json(rows)
        return 0
    from rich.table import Table

    shown = Table(*table.column_names, box=None, header_style="bold")
    for row in rows[:SHOWN_ROWS]:
        shown.add_row(*(_cell(value) for value in row.values()))
    screen = console()
    screen.print(shown)
    if len(rows) > SHOWN_ROWS:
        screen.print(f"... {len(rows) - SHOWN_ROWS:,} more rows; add LIMIT, or --json for all")
    return 0


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
