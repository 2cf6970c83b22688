"""Options of `lyra train mini`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniOptions:
    """Train the whole mini model: all steps over the GPUs of one machine, resumable.

    Runs all steps of the mini model as processes, each as soon as its inputs and GPUs are there. The same command again
    skips what is finished and goes on with what is not.

    Examples:

      lyra train mini --out runs/mini

      lyra train mini --out runs/mini --start-from lyra_core/mini/weights

      lyra train mini --out runs/mini --pause-after 25 --sync-to kept

      lyra train mini --out runs/mini --only depth --only pack --only 'table*'

      lyra train mini --out runs/debug --debug --device cpu
    """

    out: Annotated[Path, typer.Option(help="Folder for all steps, logs and weights.")]
    gpus: Annotated[
        int | None, typer.Option(help="GPUs to use (default: all; with --device cpu places for processes, 1).")
    ] = None
    minutes_scale: Annotated[float, typer.Option(help="Factor of all training times.")] = 1.0
    pause_after: Annotated[
        float | None, typer.Option(help="Minutes after which this call pauses; repeat it to resume.")
    ] = None
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of packed weights to begin with (default: from nothing).")
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="A step, also as a pattern; repeat it (default: all)."),
    ] = None
    sync_to: Annotated[
        Path | None, typer.Option(help="Folder that receives what each step leaves, as soon as it ends.")
    ] = None
    part_mib: Annotated[float, typer.Option(help="Larger files arrive there in parts of this many MiB.")] = 15.0
    views: Annotated[
        Path | None, typer.Option(help="Folder of camera paths, made where missing (default: OUT/paths).")
    ] = None
    photographs: Annotated[
        Path | None, typer.Option(help="Folder of photographs (default: those of this project).")
    ] = None
    student_weight: Annotated[float, typer.Option(help="Of the student in what is packed, 0 to 1.")] = 0.4
    workers: Annotated[
        int | None, typer.Option(help="Processes of a step that prepare scenes (default: by its GPUs).")
    ] = None
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="Where steps train.")] = "cuda"
    debug: Annotated[bool, typer.Option("--debug", help="Tiny steps of seconds, to try the command on a CPU.")] = False
