"""Changes nested settings by name: what recipes and manifests say in plain values becomes the library's dataclasses."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lyra_core.errors import RecipeError

T = TypeVar("T")


def configured(base: T, changes: Mapping[str, object], where: str = "") -> T:
    """A dataclass with some fields replaced; a mapping under a field that is a dataclass itself changes that one.

    Args:
        base: the dataclass; its annotations say which values are accepted.
        changes: new values by field; lists stand for tuples, as in JSON.
        where: prefix of the fields' names in messages, e.g. "video.".

    Raises:
        RecipeError: an unknown field, a value of another type, or whatever the dataclass refuses.
    """
    hints = get_type_hints(type(base))
    known = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    if unknown := sorted(set(changes) - set(known)):
        raise RecipeError(f"{where}{unknown[0]} is unknown; fields of {where.rstrip('.') or 'it'}: {', '.join(known)}")
    values = {name: _fitting(known[name], value, hints[name], where + name) for name, value in changes.items()}
    changed: T = dataclasses.replace(base, **values)  # type: ignore[type-var]
    return changed


def _fitting(current: object, value: object, hint: Any, where: str) -> Any:
    if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
        return configured(current, value, f"{where}.")
    value = _with_tuples(value)
    if not _accepts(hint, value):
        accepted = " or ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else _name(hint)
        raise RecipeError(f"{where} should be {accepted}, found {value!r}")
    return float(value) if hint is float and isinstance(value, int) else value


def _with_tuples(value: object) -> object:
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _accepts(hint: Any, value: object) -> bool:
    arguments, origin = get_args(hint), get_origin(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(_accepts(one, value) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(each) == len(value) and all(map(_accepts, each, value))
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
