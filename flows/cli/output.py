"""How commands speak: tables and sentences for people on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from lyra_core.errors import LyraWarning
from lyra_core.escape import for_terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

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
    """A rich console; output is plain where it is piped. Strings are text, never markup: styles come as rich.Text."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # told apart at the end of the command, as any other pipe that closed

    return Screen(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Plain strings and (string, style) pairs as one line of safe text."""
    from rich.text import Text

    return Text.assemble(
        *(for_terminal(p) if isinstance(p, str) else (for_terminal(p[0]), p[1]) for p in parts), overflow="fold"
    )


def waiting(text: str) -> Status:
    """A spinner on standard error while something takes time."""
    screen = console(stderr=True)
    return screen.status(styled(text), spinner="dots" if can_draw(screen) else "line")


def can_draw(screen: Console) -> bool:
    """Whether the terminal's encoding has more than ASCII."""
    return screen.encoding.lower().replace("-", "").startswith("utf")


def print_json(document: object) -> None:
    """The one JSON document of a command."""
    sys.stdout.write(json.dumps(plain(document), indent=2, allow_nan=False) + "\n")


def plain(value: object) -> object:
    """A value as JSON has it: numbers are numbers, NaN and infinity are null, moments are ISO 8601."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.hex() if isinstance(value, bytes) else str(value)


def print_error(sentence: str, kind: str = "Interrupted") -> None:
    """One clear sentence on standard error, and a JSON document where JSON was asked for."""
    if _as_json:
        print_json({"error": {"type": kind, "message": sentence}})
    out = console(stderr=True)
    out.print("error: ", style="bold red", end="")
    out.print(for_terminal(sentence, keep_lines=True))


def plain_warnings() -> None:
    """Show the project's own warnings as sentences, without the place in the code that Python adds."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, LyraWarning):
            usual(message, category, filename, lineno, file, line)
            return
        out = console(stderr=True)
        out.print("warning: ", style="bold yellow", end="")
        out.print(for_terminal(str(message), keep_lines=True))

    warnings.showwarning = show


def ready_streams() -> None:
    """Let every character be printed on any terminal: what its encoding lacks is spelt out instead of an error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (>&-)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  open to the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def leave_pipe() -> None:
    """Forget what could not be written because the reader left (`lyra query ... | head`)."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)


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
