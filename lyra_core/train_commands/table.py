"""lyra train table: measure packed weights on held-out scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """Measure packed weights on held-out scenes: the table of the model card, with pictures.

    Parts may be measured on different machines: lines that a run does not measure are kept from the day's file where
    they are of the same weights. "True depth" gives the model the scene's own depth of every frame, "estimated" is what
    is shipped: the seed's depth from the image alone (one factor per scene takes its scale out: a user's path is laid
    out in it), every chunk's by the depth network, aligned to what is remembered.

    Examples:

      lyra train table --views .training/table --out pictures --teacher runs/teacher/weights.safetensors

      lyra train table --device cpu --scenes 4 --out pictures

      lyra train table --device cuda:1 --parts drift --parts novel --out gpu1

      lyra train table --merge gpu0/mini-DATE.json --merge gpu1/mini-DATE.json --out pictures
    """

    out: Annotated[Path, typer.Option(help="Folder for pictures.")]
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda"
    scenes: Annotated[int, typer.Option(help="Scenes of all other rows.")] = 32
    drift_scenes: Annotated[int | None, typer.Option(help="Scenes of the six-chunk paths (default: all).")] = None
    splat_scenes: Annotated[int, typer.Option(help="Scenes of rows that make and render Gaussians.")] = 8
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the weights (default: of the packed model in this package).")
    ] = None
    views: Annotated[Path | None, typer.Option(help="Folder that keeps the camera paths between runs.")] = None
    feature_weights: Annotated[
        Path | None, typer.Option(help="Weights of EfficientNet-Lite1 (default: of its package, extra train).")
    ] = None
    ablation: Annotated[
        str | None, typer.Option(help="Trained without self-augmented histories: a component or weights.safetensors.")
    ] = None
    teacher: Annotated[
        str | None, typer.Option(help="What the few-step student learnt from: a component or weights.safetensors.")
    ] = None
    many: Annotated[int | None, typer.Option(help="Steps of the teacher; 0 for none (default: 16, on a CPU 0).")] = None
    parts: Annotated[
        list[str] | None,
        typer.Option(
            help="A part to measure, of vae, returning, depth, gaussians, drift, photographs, depth-table, novel and "
            "world; repeat it (default: all).",
        ),
    ] = None
    result: Annotated[
        Path | None, typer.Option(help="Folder for the numbers, one for each process (default: --out).")
    ] = None
    merge: Annotated[list[Path] | None, typer.Option(help="Measure nothing: make one of these results; repeat it.")] = (
        None
    )


def measure(options: TableOptions) -> None:
    """Measure, or merge results."""
    from lyra_core.evaluation.measure_table import PARTS, TableConfig, measure_table
    from lyra_core.evaluation.merge import merge
    from lyra_core.mini.manifest import MINI_FOLDER
    from lyra_core.train_commands.process import log

    folder = options.result or options.out
    if options.merge:
        options.out.mkdir(parents=True, exist_ok=True)
        log.info("%s", merge(options.merge, folder, options.out))
        return
    config = TableConfig(
        out=options.out,
        result=folder,
        device=options.device,
        scenes=options.scenes,
        drift_scenes=options.drift_scenes,
        splat_scenes=options.splat_scenes,
        weights=options.weights or MINI_FOLDER,
        views=options.views,
        feature_weights=options.feature_weights,
        ablation=options.ablation,
        teacher=options.teacher,
        teacher_steps=options.many,
        parts=tuple(options.parts or PARTS),
    )
    log.info("%s", measure_table(config, log.info))
