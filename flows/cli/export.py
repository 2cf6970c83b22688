"""lyra export: write other programs' formats from stored worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting

EXIT_FAILED = 1


def export(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write into: <world id>/<format>/.")],
    formats: Annotated[
        str, typer.Option("--format", help="Formats with commas, such as usd,gltf,spz; see docs/geometry.md.")
    ],
    where: Annotated[str, typer.Option("--where", help="Which worlds, as SQL over the table worlds.")] = "true",
    as_json: AsJson = False,
) -> int:
    """Write worlds in other programs' formats, without the models; exit code 1 if one could not be written.

    What exists is left as it is, so the same command continues after an interruption.

    Examples:

      lyra export ./worlds --format usd,gltf,spz --to exported

      lyra export s3://bucket/worlds --format colmap --where "accepted AND psnr_db > 30" --to exported
    """
    choose_json(as_json)
    from catalogs.commit import read_commit
    from catalogs.find import require_catalog
    from catalogs.query import query
    from lyra_core.formats.store import open_store
    from tasks.export import export_world, find_exports, require_packages

    exports = find_exports([name.strip() for name in formats.split(",") if name.strip()])
    require_packages(exports)
    store = open_store(uri)
    require_catalog(store)
    _make_folder(to)
    wanted = query(store, f"SELECT world_id, name FROM worlds WHERE {where} ORDER BY name, world_id").to_pylist()
    written, problems = 0, []
    with waiting("exporting") as spinner:
        for number, row in enumerate(wanted):
            spinner.update(f"exporting: {number:,} of {len(wanted):,} worlds")
            done = export_world(store, read_commit(store, row["world_id"]).world, exports, to)
            written += len(done.written)
            for form, reason in done.problems.items():
                problems.append({"world_id": row["world_id"], "name": row["name"], "format": form, "problem": reason})
    existed = len(wanted) * len(exports) - len(problems) - written
    if as_json:
        print_json({"worlds": len(wanted), "written": written, "existed": existed, "problems": problems})
    else:
        screen = console()
        screen.print(
            f"{len(wanted):,} worlds: {written:,} exports written to {to}, {existed:,} were there, "
            f"{len(problems):,} failed"
        )
        for problem in problems:
            place = f"{problem['name'] or ''}  {problem['world_id'][:12]}  {problem['format']}"
            screen.print(styled(f"  {place}  {problem['problem']}"))
    return EXIT_FAILED if problems else 0


def _make_folder(to: Path) -> None:
    from lyra_core.errors import StoreError

    try:
        to.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise StoreError(f"--to {to}: wanted a folder to write into, found {error.strerror}; choose another") from error
