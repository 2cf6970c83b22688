"""Named recipes: functions that return complete parameter sets. A variant of a recipe is a model_copy of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lyra_core.errors import RecipeError
from tasks.recipe import Recipe, with_fields


def parallax() -> Recipe:
    """The baseline without learning: depth layers, warp, hole filling. Runs anywhere."""
    return Recipe(
        name="parallax",
        description="Baseline without learning: depth layers from one photograph; seconds per world on a laptop.",
        model="parallax",
        width=416,
        height=240,
        seconds_per_world=8.0,
        bytes_per_world=14_000_000,
    )


def parallax_480p() -> Recipe:
    """The baseline at the resolution of Lyra 2."""
    return parallax().model_copy(
        update={
            "name": "parallax-480p",
            "description": "The baseline at 480x832, the resolution of Lyra 2.",
            "width": 832,
            "height": 480,
            "seconds_per_world": 30.0,
            "bytes_per_world": 55_000_000,
        }
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"parallax": parallax, "parallax-480p": parallax_480p}


def find_recipe(name: str, assignments: Sequence[str] = ()) -> Recipe:
    """A recipe by name, with field=value assignments applied.

    Raises:
        RecipeError: no such recipe, or an assignment that does not fit.
    """
    if name not in RECIPES:
        raise RecipeError(f"recipe: wanted one of {', '.join(sorted(RECIPES))}, found {name!r}; see: lyra recipes")
    return with_fields(RECIPES[name](), list(assignments))
