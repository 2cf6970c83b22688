"""lyra publish: freeze a version of a catalog that may be passed on."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled

EXIT_REFUSED = 1


def publish(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    version: Annotated[str, typer.Argument(help="Name of the release, for example v1.0.")],
    snapshot: Annotated[int | None, typer.Option(min=1, help="Snapshot to freeze. (default: the latest)")] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the data set.")] = "lyra-worlds",
    leave_out: Annotated[bool, typer.Option("--leave-out", help="Publish without the refused worlds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be refused; write nothing.")] = False,
    as_json: AsJson = False,
) -> int:
    """Freeze a snapshot under a name that is never changed, with README.md and croissant.json.

    Worlds whose weights or photographs do not allow it are refused and named: restricted or unknown licenses, and
    photographs under licenses that want a credit without one. Exit code 1 if some are.

    Examples:

      lyra publish ./worlds v1.0 --dry-run

      lyra publish s3://bucket/worlds v1.0 --leave-out --title "Meadows"
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.publish import publish as freeze
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    release = freeze(store, version, title=title, version=snapshot, leave_out=leave_out, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "release": release.name,
                "snapshot": release.version,
                "worlds": release.num_worlds,
                "refused": release.refused,
                "written": not dry_run,
            }
        )
    else:
        screen = console()
        verb = "would hold" if dry_run else "holds"
        screen.print(
            styled(f"release {release.name} {verb} {release.num_worlds:,} worlds of snapshot {release.version}")
        )
        if release.refused:
            screen.print(f"{len(release.refused):,} worlds {'would be' if dry_run else 'were'} left out:")
        for world, why in release.refused.items():
            screen.print(styled(f"  {world[:12]}  {why}"))
    return EXIT_REFUSED if dry_run and release.refused and not leave_out else 0
