"""The parameters of the generate flow: what a deployment schedules and what `lyra run` fills in."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flows.recipes import DEFAULT_RECIPE, find_recipe
from tasks.recipe import Recipe


class GenerateParameters(BaseModel):
    """One batch. Everything is JSON, so that a schedule, the Prefect UI and the CLI can all hold it.

    Where it runs (workers, Ray, storage credentials) is not here but in lyra.toml and the environment of the process.
    """

    model_config = ConfigDict(extra="forbid")

    seeds: list[str] = Field(min_length=1, description="images, folders, globs, URL prefixes or manifests")
    out: str = Field(description="a path or any fsspec URL")
    recipe: str = DEFAULT_RECIPE
    assignments: list[str] = Field([], description="field=value changes to the recipe")
    limit: int | None = Field(None, ge=1, description="look at this many seeds at most")
    retry_rejects: bool = False
    accepted_licenses: list[str] = []
    run_id: str | None = Field(None, description="default: the time and four random characters")

    def resolved_recipe(self) -> Recipe:
        """The recipe with its assignments, its licenses accepted.

        Raises:
            RecipeError, LicenseError.
        """
        recipe = find_recipe(self.recipe, self.assignments)
        recipe.require_licenses(frozenset(self.accepted_licenses))
        if recipe.weights is not None and "://" not in recipe.weights:
            # Workers run in other folders.
            recipe = recipe.model_copy(update={"weights": str(Path(recipe.weights).expanduser().resolve())})
        return recipe
