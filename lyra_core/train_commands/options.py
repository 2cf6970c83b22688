"""Options of commands as fields of frozen values, and the options that every training takes."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


def as_function(options: type[Any], receive: Callable[[Any], object]) -> Callable[..., object]:
    """A function whose parameters are the fields of a value, as typer wants a command to be.

    Args:
        options: a dataclass whose fields are annotated with typer.Option or typer.Argument.
        receive: called with the value that a command line asks for.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(options)
    ]

    def command(**values: Any) -> object:
        return receive(options(**values))

    command.__doc__ = unwrapped(options.__doc__ or "")
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def unwrapped(text: str) -> str:
    """A docstring with each paragraph on one line: terminals have other widths than files."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(re.sub(r"\n *", " ", paragraph) for paragraph in paragraphs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What every training asks; `scenes` has another default for each."""

    minutes: Annotated[float, typer.Option(help="Minutes of training; start-up does not count.")]
    out: Annotated[Path, typer.Option(help="Folder for weights, metrics and pictures.")]
    photographs: Annotated[Path, typer.Option(help="Folder of photographs.")] = Path("examples")
    resume: Annotated[Path | None, typer.Option(help="Full checkpoint to continue (full.pt).")] = None
    start_from: Annotated[
        Path | None, typer.Option(help="Weights to begin with: weights.safetensors, or a folder of packed weights.")
    ] = None
    pause_after: Annotated[
        float | None, typer.Option(help="Minutes of training after which this call stops, to be resumed.")
    ] = None
    pause_at: Annotated[float | None, typer.Option(help="Time at which it stops, in seconds since 1970.")] = None
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda"
    seed: Annotated[int, typer.Option(help="Of first weights and data.")] = 0
    scenes: Annotated[int, typer.Option(help="Procedural scenes to learn from.")] = 640
    views: Annotated[
        Path | None, typer.Option(help="Camera paths by `views`, of depth by `depth-views` (default: search now).")
    ] = None
    workers: Annotated[
        int | None, typer.Option(help="Processes that prepare scenes and textures (default: most of the cores).")
    ] = None
    debug: Annotated[bool, typer.Option("--debug", help="Small frames and networks, to try the command on a CPU.")] = (
        False
    )
