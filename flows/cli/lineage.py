"""lyra lineage: how a world relates to others."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled


def lineage(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    world_id: Annotated[str, typer.Argument(help="The world's id, or enough of its beginning.")],
    as_json: AsJson = False,
) -> int:
    """Show the variants of a world, the worlds it extends, and those that extend it or branch off.

    Example: lyra lineage ./worlds 3f2a91c4
    """
    choose_json(as_json)
    from catalogs.find import find_world
    from catalogs.lineage import lineage as read_lineage
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    family = read_lineage(store, find_world(store, world_id).world_id)
    if as_json:
        print_json(asdict(family))
        return 0
    screen = console()
    screen.print(styled((family.world_id, "bold")))
    for label, worlds in (
        ("variants", family.variants),
        ("extends", family.extends),
        ("extended by", family.extended_by),
        ("branches", family.branches),
    ):
        screen.print(styled(f"  {label:<12}{', '.join(worlds) or 'none'}"))
    return 0
