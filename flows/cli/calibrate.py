"""lyra calibrate: what a metre is to a model whose cameras are actions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled
from lyra_core.errors import RecipeError

PHOTOGRAPHS = ("wine_cellar.jpg", "coffee_table.jpg", "forest_stream.jpg", "launch_pad.jpg", "alpine_path.jpg")
"""Of the samples: a room, things on a table, woods, a large yard, mountains."""


def calibrate(
    name: Annotated[str, typer.Argument(help="A recipe of Cosmos 3 with camera actions.")] = "cosmos3-nano",
    photos: Annotated[list[Path] | None, typer.Argument(help="Photographs of scenes of different depth.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of measurements, table, plot and verdict.")] = Path("calibration"),
    assignments: Annotated[list[str] | None, typer.Option("--set", help="field=value of the recipe.")] = None,
    device: Annotated[str, typer.Option(help="Where it computes.")] = "cuda",
    as_json: AsJson = False,
) -> None:
    """Measure how Cosmos 3 follows metres, and say which gain to set; goes on where it was stopped.

    About an hour on one H100 with the real weights (an estimate).

    Example:
      lyra calibrate cosmos3-nano --out calibration
    """
    choose_json(as_json)
    from flows.recipes import find_recipe
    from lyra_core.config.cosmos import CAMERA
    from lyra_core.cosmos.calibrate import calibrate as measure
    from lyra_core.cosmos.calibrate import require_ready
    from lyra_core.cosmos.model import load_parts
    from lyra_core.factory import factory_root

    recipe = find_recipe(name, assignments or [])
    options = recipe.model_options()
    choices = _camera_choices(options.get("cosmos"), name)
    samples = factory_root() / "examples" / "seeds"
    photographs, size = photos or [samples / photograph for photograph in PHOTOGRAPHS], (recipe.width, recipe.height)
    if recipe.cosmos is not None:
        require_ready(recipe.cosmos, photographs, out, size)
    parts = load_parts(recipe.model, CAMERA, device=device, weights=recipe.weights, cosmos=choices)
    found = measure(
        parts,
        photographs,
        out,
        size=size,
        on_measurement=None if as_json else lambda done, total: console(stderr=True).print(f"{done} of {total}"),
    )
    if as_json:
        print_json(asdict(found))
    else:
        console().print(styled(found.text))
        console().print(styled(f"table, plot and measurements: {out}"))


def _camera_choices(choices: object, name: str) -> dict[str, object]:
    """The group `cosmos` of a recipe; an error where it has none."""
    if not isinstance(choices, dict):
        raise RecipeError(f"calibration is of recipes of Cosmos 3 (cosmos3-nano, cosmos3-super), found {name!r}")
    return choices
