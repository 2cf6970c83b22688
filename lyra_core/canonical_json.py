"""One text for equal JSON documents, from which digests are made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from lyra_core.errors import RecipeError


def canonical_json(document: object, name: str = "the mapping") -> str:
    """JSON with sorted keys, no spaces, ASCII only, and floats that read back exactly.

    Tuples become lists. Python prints the shortest decimal that reads back to the same double, so no digit is lost.

    Args:
        document: str, bool, int, float, None, and lists, tuples and mappings of these.
        name: of the document, in errors.

    Raises:
        RecipeError: keys that are no strings, NaN or infinity, or values other than str, bool, int, float, None,
            lists, tuples and mappings of these.
    """
    return json.dumps(_plain(document, (name,)), sort_keys=True, separators=(",", ":"))


def _plain(value: object, where: tuple[object, ...]) -> object:
    """The value in plain types; `where` is the way to it, spelt out only in an error."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # also enumerations of strings
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecipeError(f"{_spelt(where)} is {value}; only finite numbers can be part of an id")
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item, (*where, i)) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RecipeError(f"{_spelt(where)} has the key {key!r}; keys must be strings")
        return {str.__str__(key): _plain(item, (*where, key)) for key, item in value.items()}
    raise RecipeError(
        f"{_spelt(where)} is a {type(value).__name__}; wanted str, bool, int, float, None, or lists and mappings of "
        "these"
    )


def _spelt(where: tuple[object, ...]) -> str:
    return str(where[0]) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where[1:])
