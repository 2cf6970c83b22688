"""docs/extending.md: a model, a recipe, a stage, a format and a store from one file outside the product."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from catalogs.query import query
from catalogs.verify import verify
from flows.parameters import GenerateParameters
from flows.recipes import find_recipe
from flows.session import Session
from flows.settings import Settings
from lyra_core.errors import RecipeError, StoreError
from lyra_core.formats.store import open_store
from tasks.artifacts import FORMATS, find_formats
from tasks.recipe import ROLES
from tasks.stages import find_stages

MODELS = Path(__file__).parent / "models"
PAGE = (MODELS.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path, make_seeds, monkeypatch):
    """Makes one world by name alone, as `lyra run --ray off` does with LYRA_MODEL_PATH."""
    monkeypatch.setenv("VAULT_ROOT", str(tmp_path / "vault"))
    monkeypatch.syspath_prepend(str(MODELS))  # undone after the test; the session adds it too
    import extension  # noqa: F401  registers the store, as an installed package's entry point would

    def make(*assignments: str, out: str = "vault://bucket/worlds"):
        parameters = GenerateParameters(
            seeds=[str(make_seeds("a.png"))], out=out, recipe="extension:recipe", assignments=list(assignments)
        )
        settings = Settings(executor="inline", device="cpu", home=tmp_path / "home", model_path=str(MODELS))
        with Session.planned(parameters, settings) as session:
            session.check_output()
            (spec,) = session.plan.specs()
            return session.open_pool().submit(spec).result(timeout=60)

    return make


def test_a_world_of_all_five(run, tmp_path):
    outcome = run()
    assert (outcome.kind, outcome.num_splats) == ("created", 1)  # the stage kept one of two
    store = open_store("vault://bucket/worlds")
    (row,) = query(store, "SELECT * FROM worlds").to_pylist()
    assert (row["recipe"], row["model_name"], row["num_splats"]) == ("extended", "extension:load", 1)
    assert [stage["stage"] for stage in row["stage_s"]][:4] == ["seed", "video", "gaussians", "keep_right"]
    keys = {artifact["role"]: artifact["key"] for artifact in row["artifacts"]}
    assert sorted(keys) == ["means", "page_0", "page_1", "ply"]
    assert json.loads(store.read_bytes(keys["means"])) == [pytest.approx([0.1, 0, 2.0])]
    assert (tmp_path / "vault" / "bucket" / "worlds" / keys["page_1"]).is_file()
    assert verify(store) == []


@pytest.mark.parametrize(
    ("stage", "told"),
    [("refuse", "may be shown"), ("keep_none", "stage 'keep_none': wanted the Gaussians to keep, found none")],
)
def test_a_stage_may_reject_a_world(run, stage, told):
    outcome = run(f"stages=extension:{stage}")
    assert (outcome.kind, outcome.failure.stage, outcome.failure.permanent) == ("rejected", stage, True)
    assert told in outcome.failure.message


def test_a_store_that_overwrites_is_refused_before_anything_starts(run):
    with pytest.raises(StoreError, match="could be committed twice"):
        run(out="careless://bucket/worlds")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere:recipe", "recipe 'nowhere:recipe': cannot import it"),
        ("extension:nothing", "has no attribute 'nothing'"),
        ("extension:NO_RECIPE", "wanted a function that returns a Recipe, found dict"),
        ("nothing", "or package.module:function of your own"),
    ],
)
def test_a_recipe_that_is_none_is_told(monkeypatch, name, told):
    monkeypatch.syspath_prepend(str(MODELS))
    with pytest.raises(RecipeError, match=told):
        find_recipe(name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stages": ("extension:quality",)}, "the name 'quality' is taken"),
        ({"stages": ("extension:refuse", "extension:refuse")}, "the name 'refuse' is taken"),
        ({"stages": ("extension:MEANS",)}, "wanted a function, found Format"),
        ({"artifacts": ("extension:refuse",)}, "wanted a tasks.artifacts.Format, found function"),
        ({"artifacts": ("ply", "extension:SECOND_PLY")}, "two formats have the name 'gaussians.ply'"),
    ],
)
def test_what_does_not_fit_is_told_when_a_worker_starts(monkeypatch, change, told):
    monkeypatch.syspath_prepend(str(MODELS))
    recipe = find_recipe("extension:recipe").model_copy(update=change)
    with pytest.raises(RecipeError, match=told):
        find_stages(recipe), find_formats(recipe)


@pytest.mark.parametrize(
    ("change", "told"), [("artifacts=plx", "'plx' is none of ply, surfaces, video"), ("stages=x", "'x' is")]
)
def test_a_misspelt_name_is_told_at_once(change, told):
    with pytest.raises(RecipeError, match=told):
        find_recipe("parallax", [change])


def test_recipes_without_stages_keep_their_ids():
    assert "stages" not in find_recipe("mini").hashed_fields()
    assert find_recipe("mini", ["stages=a:b"]).hashed_fields()["stages"] == ["a:b"]


def test_roles_and_formats_are_one_list():
    assert {*FORMATS, "chunks"} == set(ROLES)


def test_the_page_names_at_most_three_files_for_each():
    sections = {part.splitlines()[0]: part for part in PAGE.split("\n## ")[1:]}
    assert list(sections) == ["A model", "A recipe", "A stage", "A file format", "A store"]
    for title, text in sections.items():
        here = text.partition("*In this repository*")[2]
        assert len(set(re.findall(r"`((?:flows|tasks|lyra_core)/[\w./]*)`", here))) <= 3, title
