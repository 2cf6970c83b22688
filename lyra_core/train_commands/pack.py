"""lyra train pack, lyra train card: EMA weights of runs become the packed mini model, with its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """Put EMA weights of runs where the mini model loads them from.

    Examples:

      lyra train pack --vae runs/vae/weights.safetensors --run runs/vae/summary.json

      lyra train pack --video runs/student/weights.safetensors --blend runs/teacher/weights.safetensors
      --run runs/teacher/summary.json --run runs/student/summary.json
    """

    vae: Annotated[Path | None, typer.Option(help="weights.safetensors of an autoencoder run.")] = None
    video: Annotated[Path | None, typer.Option(help="weights.safetensors of a video run.")] = None
    depth: Annotated[Path | None, typer.Option(help="weights.safetensors of a depth run.")] = None
    super_resolution: Annotated[Path | None, typer.Option(help="weights.safetensors of a super-resolution run.")] = None
    blend: Annotated[
        Path | None,
        typer.Option(help="Weights that --video or --vae went on from (its teacher, say): packs a mean of both."),
    ] = None
    student_weight: Annotated[float, typer.Option(help="Of the later weights in that mean, 0 to 1.")] = 0.4
    name: Annotated[str, typer.Option(help="Name of the video component.")] = "video"
    run: Annotated[
        list[Path] | None,
        typer.Option(help="summary.json of the run, and of those it went on from: once for each."),
    ] = None
    gpus: Annotated[int | None, typer.Option(help="GPUs of runs whose summary does not tell (default: 1).")] = None
    out: Annotated[
        Path | None, typer.Option(help="Folder of the weights (default: of the packed model in this package).")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOptions:
    """Write the card of the packed weights.

    Example:

      lyra train card --result runs/mini/table/mini-2026-11-27.json --out runs/mini/weights
    """

    result: Annotated[Path | None, typer.Option(help="Numbers of `lyra train table` for these weights.")] = None
    out: Annotated[
        Path | None, typer.Option(help="Folder of the weights (default: of the packed model in this package).")
    ] = None


def pack(options: PackOptions) -> None:
    """Write components, and a card without numbers: those that were measured are of other weights."""
    from lyra_core.evaluation.card import write_card
    from lyra_core.mini.manifest import MINI_FOLDER, SUPER_RESOLUTION
    from lyra_core.train_commands.process import log
    from lyra_core.training.packing import pack_runs

    weights = {
        "vae": options.vae,
        options.name: options.video,
        "depth": options.depth,
        SUPER_RESOLUTION: options.super_resolution,
    }
    folder = options.out or MINI_FOLDER
    pack_runs(
        {name: path for name, path in weights.items() if path is not None},
        folder,
        summaries=options.run or [],
        gpus=options.gpus,
        teacher=options.blend,
        student_weight=options.student_weight,
    )
    log.info("%s; now run lyra train table, then lyra train card", write_card(folder))


def card(options: CardOptions) -> None:
    """Write the card."""
    from lyra_core.evaluation.card import write_card
    from lyra_core.mini.manifest import MINI_FOLDER
    from lyra_core.train_commands.process import log

    log.info("%s", write_card(options.out or MINI_FOLDER, options.result))
