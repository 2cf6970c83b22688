"""What a field accepts is checked alike by the dataclass and by pydantic."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from lyra_core.config.bounds import Bounded, Bounds
from lyra_core.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Bounded):
    count: Annotated[int, Bounds(ge=1, le=8)] = 1
    share: Annotated[float, Bounds(gt=0)] = 0.5
    group: Annotated[int, Bounds(ge=2)] | None = None
    word: Literal["one", "two"] = "one"


GOOD = [{}, {"count": 8}, {"share": 1e-9}, {"group": 2}, {"group": None}, {"word": "two"}]
BAD = [
    ({"count": 0}, "count must be at least 1, found 0"),
    ({"count": 9}, "count must be at most 8, found 9"),
    ({"share": 0.0}, "share must be more than 0, found 0.0"),
    ({"share": float("nan")}, "share must be more than 0, found nan"),
    ({"group": 1}, "group must be at least 2, found 1"),
    ({"word": "three"}, "word should be 'one' or 'two', found 'three'"),
]


@pytest.mark.parametrize("fields", GOOD)
def test_good_values_are_taken(fields):
    assert TypeAdapter(Options).validate_python(fields) == Options(**fields)


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_bad_values_are_refused_by_both(fields, message):
    with pytest.raises(RecipeError, match=message):
        Options(**fields)
    with pytest.raises((ValidationError, RecipeError), match=next(iter(fields))):
        TypeAdapter(Options).validate_python(fields)


def test_pydantic_reads_text_and_names_the_limit():
    assert TypeAdapter(Options).validate_python({"count": "3", "share": "2"}) == Options(count=3, share=2.0)
    with pytest.raises(ValidationError, match="less than or equal to 8"):
        TypeAdapter(Options).validate_python({"count": "9"})
