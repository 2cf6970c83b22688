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
    found = read_status(store)
    if as_json:
        print_json(asdict(found))
        return 0
    screen = console()
    screen.print(styled((uri, "bold")))
    for label, value in (
        ("worlds", f"{found.worlds:,}"),
        ("accepted", f"{found.accepted:,}"),
        ("open rejects", f"{found.rejects_open:,}"),
        ("splats", f"{found.splats:,}"),
        ("size", human_bytes(found.bytes)),
        (
            "snapshot",
            "none yet" if found.snapshot_version is None else f"v{found.snapshot_version:06d}",
        ),
        ("not yet in it", f"{found.uncompacted:,}"),
    ):
        screen.print(f"  {label:<14}{value}")
    return 0
