"""Which values a field accepts, declared in its annotation: checked by the dataclass, and by pydantic in recipes."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from lyra_core.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a number, in `Annotated[int, Bounds(ge=1)]`.

    Attributes:
        ge: at least.
        gt: more than.
        le: at most.
    """

    ge: int | float | None = None
    gt: int | float | None = None
    le: int | float | None = None

    def refuses(self, value: float) -> str | None:
        """What was wanted, if the value lies outside."""
        if self.ge is not None and not value >= self.ge:
            return f"at least {self.ge}"
        if self.gt is not None and not value > self.gt:
            return f"more than {self.gt}"
        if self.le is not None and not value <= self.le:
            return f"at most {self.le}"
        return None

    def __get_pydantic_core_schema__(
        self, source: object, handler: Callable[[object], Mapping[str, object]]
    ) -> dict[str, object]:
        limits = {"ge": self.ge, "gt": self.gt, "le": self.le}
        return {**handler(source), **{name: limit for name, limit in limits.items() if limit is not None}}


class Bounded:
    """Base of dataclasses whose fields say what they accept: numbers by Bounds, words by Literal."""

    __slots__ = ()

    def __post_init__(self) -> None:
        require_bounds(self)


def require_bounds(config: object) -> None:
    """Check every field of a dataclass that declares what it accepts.

    Raises:
        RecipeError: the first value that is refused; the message names its field.
    """
    kind: type = type(config)
    for name, hint in _hints(kind).items():
        value = getattr(config, name)
        for bounds in _bounds(hint):
            bounds_text = bounds.refuses(float(value)) if isinstance(value, int | float) else None
            if bounds_text is not None:
                raise RecipeError(f"{name} must be {bounds_text}, found {value!r}")
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise RecipeError(f"{name} should be {' or '.join(map(repr, get_args(hint)))}, found {value!r}")


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _bounds(hint: Any) -> Iterator[Bounds]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in get_args(hint)[1:] if isinstance(extra, Bounds))
    elif get_origin(hint) in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _bounds(one)
