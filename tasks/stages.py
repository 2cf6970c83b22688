"""Stages of one's own, between the Gaussians and their measurements: functions that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from lyra_core.entry_point import load_entry_point
from lyra_core.errors import RecipeError
from lyra_core.values import Gaussians, VideoClip
from tasks.recipe import Recipe

Stage = Callable[[VideoClip, Gaussians], Gaussians]
"""Takes the clip and its Gaussians, returns the Gaussians to keep; a LyraError it raises rejects the world."""

# What else happens to a world: rejects and the catalog's `stage_s` name these.
TAKEN = frozenset(
    {"plan", "source", "store", "load", "canary", "seed", "video", "gaussians", "geometry", "quality", "pictures"}
    | {"artifacts", "encode", "upload"}
)


def find_stages(recipe: Recipe) -> dict[str, Stage]:
    """The recipe's own stages, in order, under the names of their functions.

    Raises:
        RecipeError: one cannot be imported or called, or two have the same name.
    """
    stages: dict[str, Stage] = {}
    for name in recipe.stages:
        stage = load_entry_point(name, "stage")
        label = name.rpartition(":")[2]
        if label in stages or label in TAKEN:
            raise RecipeError(f"stage {name!r}: the name {label!r} is taken; rename the function")
        if not callable(stage):
            raise RecipeError(f"stage {name!r}: wanted a function, found {type(stage).__name__}")
        stages[label] = cast("Stage", stage)
    return stages
