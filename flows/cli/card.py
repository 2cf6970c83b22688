"""lyra card: describe a catalog for those who get it."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled


def card(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")] = "./worlds",
    name: Annotated[str, typer.Option(help="Title of the data set.")] = "lyra-worlds",
    version: Annotated[int | None, typer.Option(min=1, help="Snapshot to describe. (default: the latest)")] = None,
    publishable: Annotated[
        bool, typer.Option("--publishable", help="Refuse worlds whose weights do not allow publication.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Write README.md (with Hugging Face front matter) and croissant.json beside the worlds, from one snapshot.

    Examples:

      lyra card ./worlds --name "Meadows"

      lyra card s3://bucket/worlds --publishable
    """
    choose_json(as_json)
    from catalogs.card import write_card
    from catalogs.find import require_catalog
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    written = write_card(store, name=name, version=version, publishable=publishable)
    files = [store.uri(file) for file in ("README.md", "croissant.json")]
    if as_json:
        print_json({"files": files, "restricted": written.restricted})
        return 0
    screen = console()
    for file in files:
        screen.print(styled(f"wrote {file}"))
    if written.restricted:
        screen.print(f"{written.restricted:,} worlds must not be published; the card says which and why")
    return 0
