"""lyra dataset: write stored worlds as one data set for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting


def dataset(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must not exist.")],
    form: Annotated[
        str,
        typer.Option("--format", help="lerobot (an episode a world), webdataset (tar shards) or rerun (.rrd files)."),
    ],
    where: Annotated[str, typer.Option("--where", help="Which worlds, as SQL over the table worlds.")] = "accepted",
    split: Annotated[
        str | None, typer.Option("--split", help="train, val or test, by photograph; all if absent.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Snapshot to read. (default: the latest)")] = None,
    no_depth: Annotated[
        bool, typer.Option("--no-depth", help="Leave depth out of webdataset; it takes longest.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Write many worlds of a snapshot as one data set, whole or not at all.

    Examples:

      lyra dataset ./worlds --format lerobot --to worlds-lerobot

      lyra dataset s3://bucket/worlds --format webdataset --split train --where "psnr_db > 25" --to shards
    """
    choose_json(as_json)
    from lyra_core.dataset import open_dataset
    from tasks.data_set import write_data_set

    worlds = open_dataset(uri, version=version).where(where)
    if split is not None:
        worlds = worlds.split(split)
    with waiting(f"writing {len(worlds):,} worlds"):
        written = write_data_set(worlds, form, to, depth=not no_depth)
    if as_json:
        print_json({"folder": str(written.folder), "worlds": written.worlds, "frames": written.frames})
    else:
        console().print(styled(f"{written.folder}: {written.worlds:,} worlds, {written.frames:,} frames"))
    return 0
