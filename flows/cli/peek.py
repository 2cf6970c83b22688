"""lyra peek: one world, its picture included."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.output import AsJson, can_draw, choose_json, console, human_bytes, print_json, styled

if TYPE_CHECKING:
    from rich.text import Text

PICTURE_COLUMNS, PICTURE_LINES = 72, 24


def peek(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    world_id: Annotated[str, typer.Argument(help="The world's id, or enough of its beginning.")],
    as_json: AsJson = False,
) -> int:
    """Show one world: its preview, measurements and files.

    Example: lyra peek ./worlds 3f2a91c4
    """
    choose_json(as_json)
    from catalogs.find import find_world, require_catalog
    from lyra_core.formats.store import open_store

    store = open_store(uri)
    require_catalog(store)
    record = find_world(store, world_id)
    if as_json:
        print_json(record.to_row())
        return 0
    screen = console()
    drawn = can_draw(screen)
    preview = next((a for a in record.artifacts if a.role == "preview"), None)
    if preview is not None and drawn:
        screen.print(half_blocks(store.read_bytes(preview.key), min(PICTURE_COLUMNS, screen.width)))
    screen.print(styled((record.name or "", "bold"), f"  {record.world_id}"))
    for label, value in (
        ("seed", record.seed_uri),
        ("recipe", f"{record.recipe} ({record.model_name})"),
        (
            "path",
            f"{record.trajectory_name}, {record.num_frames} frames, {record.path_length_m or 0:.2f} m",
        ),
        ("splats", f"{record.num_splats or 0:,}"),
        ("psnr", f"{record.psnr_db:.2f} dB" if record.psnr_db is not None else "not measured"),
        ("accepted", "yes" if record.accepted else "no: " + "; ".join(record.reject_reasons)),
        ("license", record.output_license or "unknown"),
        ("made in", f"{record.wall_s or 0:.1f} s"),
    ):
        screen.print(styled(f"  {label:<10}{value}"))
    for artifact in record.artifacts:
        screen.print(
            styled(f"  {artifact.role:<18}{human_bytes(artifact.bytes):>10}  {store.uri(artifact.key)}"),
        )
    return 0


def half_blocks(jpeg: bytes, columns: int) -> Text:
    """A picture in a terminal: each character shows two pixels, one above the other."""
    from PIL import Image
    from rich.text import Text

    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    columns = max(1, min(columns, 2 * PICTURE_LINES * image.width // image.height))  # upright pictures fit, too
    rows = min(2 * PICTURE_LINES, max(2, round(columns * image.height / image.width) // 2 * 2))
    pixels = image.resize((columns, rows), Image.Resampling.LANCZOS)
    text = Text()
    for row in range(0, rows, 2):
        for column in range(columns):
            colors: Any = [pixels.getpixel((column, row)), pixels.getpixel((column, row + 1))]
            text.append("▀", style=" on ".join("rgb({},{},{})".format(*color) for color in colors))
        text.append("\n")
    return text
