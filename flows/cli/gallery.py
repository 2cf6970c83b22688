"""lyra gallery: a static site of a catalog's worlds."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting

EXIT_FAILED = 1


def gallery(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")] = "./worlds",
    where: Annotated[str, typer.Option("--where", help="Which worlds, as SQL over the table worlds.")] = "true",
    to: Annotated[
        str | None,
        typer.Option("--to", help="Folder or URL of the site. (default: gallery/ beside the worlds, without copies)"),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Shown on every page.")] = "Worlds",
    again: Annotated[bool, typer.Option("--again", help="Also pages that are there.")] = False,
    as_json: AsJson = False,
) -> int:
    """Write a static site: thumbnails to search, filter and sort, and a page with the 3D view of each world.

    It needs no server of its own: put it behind any web server or bucket. From the disk, browsers show everything but
    the 3D views; `python -m http.server` in the worlds' folder shows those too. Pages that exist are kept, so the same
    command continues and extends. Exit code 1 if a world could not be shown.

    Examples:

      lyra gallery ./worlds

      lyra gallery s3://bucket/worlds --where "accepted AND psnr_db > 30" --to site --title "Meadows"
    """
    choose_json(as_json)
    from catalogs.find import require_catalog
    from catalogs.gallery.write import write_assets, write_index
    from catalogs.query import query
    from lyra_core.errors import LyraError
    from lyra_core.formats.store import open_store
    from tasks.gallery import Site, show_world

    store = open_store(uri)
    require_catalog(store)
    site = Site(
        store=open_store(to if to is not None else f"{store.root.rstrip('/')}/gallery"),
        title=title,
        source="../" if to is None else None,
    )
    rows = query(store, f"SELECT * FROM worlds WHERE {where}").to_pylist()
    media, problems, shown = {}, [], []
    with waiting("writing pages") as spinner:
        write_assets(site.store, title)
        for number, row in enumerate(rows):
            spinner.update(f"writing pages: {number:,} of {len(rows):,} worlds")
            try:
                found = show_world(store, row["world_id"], site, again=again)
            except LyraError as error:
                problems.append({"world_id": row["world_id"], "name": row["name"], "problem": str(error)})
                continue
            media[row["world_id"]] = (found.video, found.poster)
            shown.append(row)
        write_index(site.store, shown, media, f"{len(shown):,} worlds")
    index = site.store.uri("index.html")
    if as_json:
        print_json({"index": index, "worlds": len(shown), "problems": problems})
    else:
        screen = console()
        screen.print(styled(f"{len(shown):,} worlds: {index}"))
        for problem in problems:
            screen.print(styled(f"  {problem['name'] or ''}  {problem['world_id'][:12]}  {problem['problem']}"))
        if "://" not in index:
            folder = store.root if to is None else site.store.root
            page = "gallery/" if to is None else ""
            screen.print(
                styled(
                    f"to see it with the 3D views: python -m http.server -d {folder}  and open http://localhost:8000/{page}"
                )
            )
    return EXIT_FAILED if problems else 0
