"""Changes nested settings by name: what recipes and manifests say in plain values becomes the library's dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from lyra_core.errors import RecipeError

T = TypeVar("T")


def configured(base: T, changes: Mapping[str, object], where: str = "") -> T:
    """A dataclass with some fields replaced; a mapping under a field that is a dataclass itself changes that one.

    Args:
        base: a dataclass whose fields say which types are wanted.
        changes: new values by field; lists stand for tuples, as in JSON.
        where: prefix of the fields' names in messages, e.g. "video.".

    Raises:
        RecipeError: an unknown field, a value of another type, or whatever the dataclass refuses.
    """
    known = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    if unknown := sorted(set(changes) - set(known)):
        raise RecipeError(f"{where}{unknown[0]} is unknown; fields of {where.rstrip('.') or 'it'}: {', '.join(known)}")
    values = {name: _fitting(known[name], value, f"{where}{name}") for name, value in changes.items()}
    changed: T = dataclasses.replace(base, **values)  # type: ignore[type-var]
    return changed


def _fitting(current: object, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
        return configured(current, value, f"{where}.")
    if isinstance(value, list):
        value = tuple(value)
    if current is None or value is None or type(value) is type(current):
        return value
    if isinstance(current, float) and type(value) is int:
        return float(value)
    if isinstance(current, str | int) and not isinstance(current, bool) and isinstance(value, str | int):
        return value  # a tier is a name or a number
    raise RecipeError(f"{where} should be a {type(current).__name__} like {current!r}, found {value!r}")
