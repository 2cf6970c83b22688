"""lyra recipes: the named parameter sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled

if TYPE_CHECKING:
    from tasks.recipe import Recipe


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show every field of one recipe.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the recipes, or show one.

    Example: lyra recipes parallax
    """
    choose_json(as_json)
    from flows.recipes import RECIPES, find_recipe
    from flows.settings import load_settings, use_model_path
    from tasks.recipe import field_names

    if name is not None:
        use_model_path(load_settings())
        recipe = find_recipe(name)
        if as_json:
            print_json(recipe.model_dump(mode="json"))
        else:
            fields = field_names(recipe)
            wide = 2 + max(len(field) for field in fields)
            for field, value in fields.items():
                console().print(styled(f"{field:<{wide}}{_readable(value)}"))
        return 0
    all_recipes = [make() for make in RECIPES.values()]
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in all_recipes])
        return 0
    from rich.table import Column, Table

    names = Column("recipe", no_wrap=True, min_width=max(len(recipe.name) for recipe in all_recipes))
    table = Table(names, "model", "size", "frames", "needs", "what", box=None, header_style="bold")
    for recipe in all_recipes:
        table.add_row(
            recipe.name,
            recipe.model,
            f"{recipe.height}x{recipe.width}",
            str(recipe.num_frames),
            _needs(recipe),
            recipe.description,
        )
    console().print(table)
    return 0


def _needs(recipe: Recipe) -> str:
    weights = [] if recipe.weights is None else ["weights"]
    return ", ".join([*weights, *(f"--accept-license {name}" for name in recipe.restricted_licenses)]) or "nothing"


def _readable(value: object) -> str:
    """As --set takes it."""
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
