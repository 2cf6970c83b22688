"""lyra report: one page about a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled


def report(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")] = "./worlds",
    to: Annotated[Path, typer.Option("--to", help="The file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Report of worlds",
    as_json: AsJson = False,
) -> int:
    """Write one self-contained HTML page: distributions, best and worst worlds, failures, cost, versions and weights.

    Examples:

      lyra report ./worlds

      lyra report s3://bucket/worlds --to meadows.html --title "Meadows"
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.report import report_page
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    page = report_page(store, title=title)
    _write(to, page)
    if as_json:
        print_json({"file": str(to), "bytes": len(page.encode())})
    else:
        console().print(styled(f"wrote {to}"))
    return 0


def _write(to: Path, page: str) -> None:
    from lyra_core.errors import StoreError

    try:
        to.write_text(page, encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise StoreError(f"--to {to}: wanted a file to write, found {error.strerror}; choose another") from error
