"""lyra verify: compare stored files with the catalog."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting

SHOWN_MISMATCHES = 20
EXIT_MISMATCH = 1


def verify(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")] = "./worlds",
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="Compare sizes; do not read the files.")] = False,
    as_json: AsJson = False,
) -> int:
    """Check that every file of every world exists with the size and SHA-256 of its row; exit code 1 if one does not.

    Examples:

      lyra verify ./worlds

      lyra verify s3://bucket/worlds --sizes-only
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.verify import verify as verify_files
    from lyra_core.formats.store import open_store

    store, num_files = open_store(uri), 0
    require_catalog(store)
    with waiting("verifying") as spinner:

        def on_file(count: int) -> None:
            nonlocal num_files
            num_files = count
            spinner.update(f"verifying: {count:,} files")

        mismatches = verify_files(store, sizes_only=sizes_only, on_file=on_file)
    if as_json:
        print_json({"files": num_files, "mismatches": [asdict(mismatch) for mismatch in mismatches]})
    else:
        screen = console()
        screen.print(f"{num_files:,} files compared with their rows, {len(mismatches):,} differ")
        for mismatch in mismatches[:SHOWN_MISMATCHES]:
            screen.print(styled(f"  {mismatch.key} {mismatch.problem}"))
    return EXIT_MISMATCH if mismatches else 0
