"""lyra train views, lyra train depth-views: search camera paths through procedural scenes, once for many runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsOptions:
    """Search the camera paths of `vae` and `video` through procedural scenes, once for many runs.

    Example:

      lyra train views --out .training/views.npz
    """

    out: Annotated[Path, typer.Option(help="File to write (.npz).")]
    scenes: Annotated[int, typer.Option(help="Scenes to learn from.")] = 640
    held_out: Annotated[int, typer.Option(help="Scenes to measure on.")] = 64
    workers: Annotated[int | None, typer.Option(help="Processes (default: most of the cores).")] = None
    wide: Annotated[bool, typer.Option("--wide", help="More pans, turns and one-way paths.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthViewsOptions:
    """Search the camera paths of `depth`, once for many runs.

    Example:

      lyra train depth-views --out .training/depth_views.npz
    """

    out: Annotated[Path, typer.Option(help="File to write (.npz).")]
    scenes: Annotated[int, typer.Option(help="Scenes to learn from.")] = 1280
    held_out: Annotated[int, typer.Option(help="Scenes to measure on.")] = 44
    workers: Annotated[int | None, typer.Option(help="Processes (default: most of the cores).")] = None


def search(options: ViewsOptions) -> None:
    """Search the paths of `vae` and `video`."""
    from lyra_core.procedural.world_clips import LONG_PATHS, WIDE_PATHS, search_views

    splits = {"train": options.scenes, "heldout": options.held_out}
    search_views(options.out, splits, WIDE_PATHS if options.wide else LONG_PATHS, (128, 224), options.workers)


def search_depth(options: DepthViewsOptions) -> None:
    """Search the paths of `depth`."""
    from dataclasses import replace

    from lyra_core.procedural.depth_windows import DEPTH_PATHS, WindowConfig
    from lyra_core.procedural.world_clips import search_views

    data = WindowConfig()
    splits = {"train": options.scenes, "heldout": options.held_out}
    plan = replace(DEPTH_PATHS, takes=data.takes)
    search_views(options.out, splits, plan, (data.height, data.width), options.workers)
