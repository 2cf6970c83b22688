"""One row of a manifest: its cells checked, bounded and cast, or one sentence about what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from lyra_core.public_uri import printable, without_secrets
from tasks.recipe import MAX_FRAMES, Recipe

MAX_CELL = 100_000  # characters
MAX_VARIANTS = next(int(rule.le) for rule in Recipe.model_fields["variants"].metadata if hasattr(rule, "le"))
HFOV_DEG = (5.0, 175.0)
LENGTH_M = (0.01, 10_000.0)
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One seed as named by the user; None means the recipe's default.

    `place` says where it was named ("manifest photos.csv, line 4"), for messages; it is no part of the value.
    """

    seed_uri: str
    ordinal: int
    prompt: str | None = None
    camera_path: str | None = None
    variants: int | None = None
    frames: int | None = None
    hfov_deg: float | None = None
    camera_height_m: float | None = None
    center_distance_m: float | None = None
    license: str | None = None
    source_url: str | None = None
    attribution: str | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A manifest row that cannot be used; it becomes a reject and nothing else is lost.

    `is_unreached` says that storage is at fault, which the next run asks again.
    """

    seed_uri: str
    ordinal: int
    reason: str
    is_unreached: bool = False


class RowError(Exception):
    """A cell cannot be used; the text says which and why."""


def parse_cells(cells: Mapping[str, object]) -> dict[str, object] | None:
    """The values of a row by column, or None for a row without any, as spreadsheets leave at the end.

    Raises:
        RowError: a cell of a wrong type, out of range, too long, or with characters that no text has.
    """
    filled = {column: value for column, value in cells.items() if _is_set(value)}
    if not filled:
        return None
    return {column: _CASTS[column](column, value) for column, value in filled.items()}


def shortened(value: object) -> str:
    """A value as a message shows it: without secrets, and cut where it is long."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(str(key)[:20] for key in list(value)[:4]) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value):,}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    text = str(value)
    text = without_secrets(text) if len(text) <= 10 * _SHOWN else printable(text[:_SHOWN]) + "..."
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return repr(text) if isinstance(value, str) else text


def _is_set(value: object) -> bool:
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return value is not None and value != b""


def _text(column: str, value: object) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise RowError(f"'{column}' wants text, found {len(error.object):,} bytes that are not UTF-8") from error
    if not isinstance(value, str):
        raise RowError(f"'{column}' wants text, found {shortened(value)}")
    if len(value) > MAX_CELL:
        raise RowError(f"'{column}' holds {len(value):,} characters; at most {MAX_CELL:,} are read")
    if "\0" in value:
        raise RowError(f"'{column}' holds a NUL character, which no text has; write the manifest again")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowError(f"'{column}' holds half of a surrogate pair, which is no character; correct it") from error
    return value


def _name(column: str, value: object) -> str:
    return _text(column, value).strip()


def _number(column: str, value: object, allowed: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
        raise RowError(f"'{column}' wants {allowed}, found {shortened(value)}") from error
    if not math.isfinite(number):
        raise RowError(f"'{column}' wants {allowed}, found {shortened(value)}")
    return number


def _whole(most: int, limit: str) -> Callable[[str, object], int]:
    def cast(column: str, value: object) -> int:
        allowed = f"a whole number from 1 to {most:,}"
        number = _number(column, value, allowed)
        if number > most:
            raise RowError(f"'{column}' wants {allowed} ({limit}), found {shortened(value)}")
        if number != int(number) or number < 1:
            raise RowError(f"'{column}' wants {allowed}, found {shortened(value)}")
        return int(number)

    return cast


def _length(column: str, value: object) -> float:
    least, most = LENGTH_M
    wanted = f"metres from {least:g} to {most:,.0f}"
    number = _number(column, _with_point(value), wanted)
    if not least <= number <= most:
        raise RowError(f"'{column}' wants {wanted}, found {shortened(value)}")
    return number


def _with_point(value: object) -> object:
    """A number whose decimal sign is a comma, with a point."""
    return value.replace(",", ".") if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()) else value


def _angle(column: str, value: object) -> float:
    low, high = HFOV_DEG
    allowed = f"degrees between {low:g} and {high:g}"
    number = _number(column, _with_point(value), allowed)
    if not low < number < high:
        raise RowError(f"'{column}' wants {allowed}, found {shortened(value)}")
    return number


_CASTS: dict[str, Callable[[str, object], object]] = {
    "seed": _name,
    "prompt": _text,
    "camera_path": _name,
    "variants": _whole(MAX_VARIANTS, "the limit of a recipe"),
    "frames": _whole(MAX_FRAMES, "100 chunks of 80 frames"),
    "hfov_deg": _angle,
    "camera_height_m": _length,
    "center_distance_m": _length,
    "license": _text,
    "source_url": _name,
    "attribution": _text,
}
