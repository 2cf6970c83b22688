"""lyra train check-data, lyra train export: folders of clips for fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of clips (docs/training.md).")]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """Look at a folder of clips before training on it; every problem is named, and then the exit status is not 0.

    Example:

      lyra train check-data data --decode
    """

    data: Folder
    decode: Annotated[bool, typer.Option("--decode", help="Decode every frame of video and depth too.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Write procedural worlds as a folder of clips, to try training with.

    Example:

      lyra train export data --scenes 8 --frames 161
    """

    data: Folder
    scenes: Annotated[int, typer.Option(help="Clips to write.")] = 4
    frames: Annotated[int, typer.Option(help="Frames of each.")] = 161
    height: Annotated[int, typer.Option(help="Rows.")] = 480
    width: Annotated[int, typer.Option(help="Columns.")] = 832


def check(options: CheckOptions) -> None:
    """Say what a folder holds.

    Raises:
        ConfigError: clips that cannot be used; all have been named.
    """
    from lyra_core.errors import ConfigError
    from lyra_core.finetuning.clip_check import check_folder
    from lyra_core.train_commands.process import log

    report = check_folder(options.data, decode=options.decode)
    sizes = ", ".join(f"{count} of {width}x{height}" for (height, width), count in sorted(report.sizes.items()))
    log.info("%d of %d clips can be used: %s", report.num_good, report.num_clips, sizes or "none")
    log.info(
        "%d frames (%d to %d a clip), %d captions, %.2f GB",
        *(report.num_frames, report.shortest, report.longest, report.num_captions, report.total_bytes / 1e9),
    )
    for name, problem in report.problems:
        log.error("%s: %s", name, problem)
    if report.problems:
        raise ConfigError(
            f"{len(report.problems)} of {report.num_clips} clips of {options.data} cannot be used; mend them, or name "
            "the others in all_filter.lst"
        )


def export(options: ExportOptions) -> None:
    """Write procedural worlds."""
    from lyra_core.finetuning.clip_export import export_procedural
    from lyra_core.train_commands.process import log

    count = export_procedural(options.data, range(options.scenes), options.frames, (options.height, options.width))
    log.info("%d clips of %d frames in %s", count, options.frames, options.data)
