"""How commands speak: tables and sentences for people on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document and nothing else on standard output."),
]

_as_json = False


def choose_json(as_json: bool) -> None:
    """Remember the choice for errors of this process."""
    global _as_json  # noqa: PLW0603  one process runs one command
    _as_json = as_json


def console(*, stderr: bool = False) -> Console:
    """A rich console; output is plain where it is piped."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_json(document: object) -> None:
    """The one JSON document of a command."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def print_error(sentence: str, kind: str = "Interrupted") -> None:
    """One clear sentence on standard error, and a JSON document where JSON was asked for."""
    if _as_json:
        print_json({"error": {"type": kind, "message": sentence}})
    out = console(stderr=True)
    out.print("error: ", style="bold red", end="")
    out.print(sentence, markup=False)


def human_bytes(count: float) -> str:
    """1234567 -> '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
