"""lyra gc: remove files that nothing refers to."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, human_bytes, print_json, styled, waiting

SHOWN_KEYS = 10


def gc(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    older_than_h: Annotated[
        float, typer.Option("--older-than", min=1.0, help="Leave alone what is younger than this many hours.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    as_json: AsJson = False,
) -> int:
    """Remove files of attempts that died or came second, and parts of killed compactions.

    What a commit or a snapshot names is never touched. Keep --older-than above the time one world may take.

    Examples:

      lyra gc s3://bucket/worlds --dry-run

      lyra gc ./worlds --older-than 48
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.garbage import find_garbage, remove_garbage
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    with waiting("listing files and commits"):
        garbage = find_garbage(store, older_than_h * 3600)
    removed = 0 if dry_run else remove_garbage(store, garbage, older_than_h * 3600)
    if as_json:
        print_json({"found": len(garbage.keys), "bytes": garbage.bytes, "removed": removed, "keys": garbage.keys})
        return 0
    screen = console()
    verb = "would be removed" if dry_run else "removed"
    screen.print(f"{len(garbage.keys):,} files that nothing refers to ({human_bytes(garbage.bytes)}) {verb}")
    for key in garbage.keys[:SHOWN_KEYS] if dry_run else ():
        screen.print(styled(f"  {key}"))
    return 0
