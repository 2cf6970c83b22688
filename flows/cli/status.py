"""lyra status: what a store holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, human_bytes, print_json, styled


def status(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")] = "./worlds",
    as_json: AsJson = False,
) -> int:
    """Count worlds, rejects, splats and bytes, committed a second ago or long compacted.

    Example: lyra status ./worlds
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.query import status as read_status
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    counts = read_status(store)
    if as_json:
        print_json(asdict(counts))
        return 0
    screen = console()
    screen.print(styled((uri, "bold")))
    for label, value in (
        ("worlds", f"{counts.worlds:,}"),
        ("accepted", f"{counts.accepted:,}"),
        ("open rejects", f"{counts.rejects_open:,}"),
        ("splats", f"{counts.splats:,}"),
        ("size", human_bytes(counts.bytes)),
        (
            "snapshot",
            "none yet" if counts.snapshot_version is None else f"v{counts.snapshot_version:06d}",
        ),
        ("not yet in it", f"{counts.uncompacted:,}"),
    ):
        screen.print(f"  {label:<14}{value}")
    return 0
