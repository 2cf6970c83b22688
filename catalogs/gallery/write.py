"""Writes a gallery: the index with its rows in parts, the scripts and the viewer; pages of worlds are put in between.

index.html, assets/...                        the same for every catalog
data/site.js, data/rows-<n>.js                columns and rows, the best first; scripts, for a page from the disk
w/<id[:2]>/<id>/index.html, poster.jpg, ...   one world
w/<id[:2]>/<id>/made.json                     what was made of it and when it need not be made again
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from catalogs.gallery.page import POLICY
from catalogs.gallery.rows import by_quality, index_columns, index_row
from catalogs.gallery.vendored import FILES, FOLDER, LICENSES, for_site
from lyra_core.escape import for_terminal
from lyra_core.formats.store import Store

ASSETS = Path(__file__).parent / "assets"
FIRST_PART, OTHER_PARTS = 120, 1_000  # rows: two pages of cards at once, then the rest
EXAMPLES = (
    ("accepted", "accepted"),
    ("not accepted", "NOT accepted"),
    ("sharp", "accepted AND psnr_db > 32"),
    ("floor found", "up_source = 'floor'"),
    ("may be published", "accepted_licenses IS NULL AND output_license IS NOT NULL"),
)


def world_folder(world_id: str) -> str:
    """Prefix of the keys of a world's page."""
    return f"w/{world_id[:2]}/{world_id}/"


def write_assets(site: Store, title: str) -> None:
    """The index page, style, scripts and the viewer with its licenses; files that are there and equal in size stay.

    Raises:
        FormatError: a packed file of the package is damaged.
        StoreError: the site cannot be written.
    """
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    page = page.replace("{policy}", escape(POLICY)).replace("{title}", escape(for_terminal(title)))
    site.put_bytes("index.html", page.encode("utf-8"))
    for asset in sorted(ASSETS.glob("*.css")) + sorted(ASSETS.glob("*.js")):
        site.put_bytes(f"assets/{asset.name}", asset.read_bytes())
    for name in LICENSES:
        site.put_bytes(f"assets/{name}", (FOLDER / name).read_bytes())
    for file in FILES:
        data = for_site(file)
        known = site.info(f"assets/{file.name}")
        if known is None or known.bytes != len(data):
            site.put_bytes(f"assets/{file.name}", data)


def write_index(
    site: Store, rows: Sequence[Mapping[str, object]], media: Mapping[str, tuple[str | None, bool]], made: str
) -> None:
    """The rows of the index, in parts, and the list of the parts last.

    Args:
        site: where.
        rows: of `worlds`.
        media: by world id: address of the video from the site's root, and whether there is a poster.
        made: a line about the site, for its head.

    Raises:
        StoreError: the site cannot be written.
    """
    ordered = by_quality(rows)
    bounds = [0, *range(FIRST_PART, len(ordered), OTHER_PARTS), len(ordered)] if ordered else [0]
    parts = []
    for number, (first, end) in enumerate(itertools.pairwise(bounds)):
        part = [[*index_row(row), *media.get(str(row["world_id"]), (None, False))] for row in ordered[first:end]]
        parts.append(f"data/rows-{number:03d}.js")
        site.put_bytes(parts[-1], f"lyraRows({number},{_script(part)});\n".encode())
    head = {
        "columns": index_columns(), "count": len(ordered), "parts": parts, "made": for_terminal(made),
        "examples": EXAMPLES,
    }  # fmt: skip
    site.put_bytes("data/site.js", f"lyraSite({_script(head)});\n".encode())


def _script(values: object) -> str:
    """JSON as a script's literal."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False)
