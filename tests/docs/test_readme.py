"""README.md names what there is: recipes, commands and their options, files of a world, numbers of the card."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer

from flows.cli import commands
from flows.recipes import DEFAULT_RECIPE, RECIPES, find_recipe
from tasks.artifacts import FORMATS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_recipe_is_in_the_table_of_models_and_no_other():
    rows = [line.split("|")[1] for line in section("Models").splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([\w-]+)`", " ".join(rows))) == set(RECIPES)


def test_commands_and_options_exist():
    group = typer.main.get_command(commands)
    used = re.findall(r"(?:^\$ \.venv/bin/lyra|`lyra) (\w+)(.*?)(?:`|$)", PAGE, re.MULTILINE)
    assert {name for name, _ in used} >= {"run", "query", "status", "verify", "peek", "doctor"}
    for name, rest in used:
        options = {option for parameter in group.commands[name].params for option in parameter.opts}
        wanted = set(re.findall(r"(--[a-z-]+)", re.sub(r'".*?"', "", rest)))
        assert wanted <= options, name


def test_the_tree_of_a_world_is_what_the_default_recipe_stores():
    listed = set(re.findall(r"│   [├└]── ([\w.]+)", section("What a world is").partition("catalog/")[0]))
    assert listed == {FORMATS[role].name for role in find_recipe(DEFAULT_RECIPE).artifacts}


def test_numbers_of_mini_are_those_of_its_benchmark():
    results = sorted((REPOSITORY / "benchmarks" / "results").glob("mini-*.json"))[-1]
    rows = {row["name"]: row["value"] for row in json.loads(results.read_text())["rows"]}
    table = section("Models")
    assert f"{rows['all stages, two cores']:.1f} s, two CPU cores" in table
    assert f"{rows['peak memory']:.1f} GiB" in table
    assert f"{rows['generated worlds at true novel views']:.1f} dB PSNR" in table
    assert f"{rows['generated worlds at true novel views, above parallax']:.1f} dB more" in " ".join(table.split())


def test_the_moving_picture_is_small_and_moves():
    from PIL import Image

    picture = REPOSITORY / re.search(r"!\[.*?\]\((.*?)\)", PAGE)[1]
    assert picture.stat().st_size <= 2_000_000
    assert Image.open(picture).n_frames > 20
