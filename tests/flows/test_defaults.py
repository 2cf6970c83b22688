"""One default: who names no recipe or model gets the embedded model; the sample photographs come with a manifest."""

from __future__ import annotations

import csv
import inspect
import re
from pathlib import Path

import yaml

from flows.parameters import GenerateParameters
from flows.recipes import DEFAULT_RECIPE, find_recipe
from flows.settings import Settings
from lyra_core.mini.encoders import CAPTION_BYTES
from lyra_core.world_models.load import load_model
from tasks.manifest import ManifestRow, read_seeds
from tasks.plan import WorldNamer

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = REPOSITORY / "examples" / "seeds"
MANIFEST = SEEDS / "manifest.csv"


def makefile(name: str) -> str:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return re.search(rf"^{name}\s*\?=\s*(\S+)", text, re.MULTILINE)[1]


def test_one_recipe_everywhere():
    from flows.cli.run import run

    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    asked = {d["parameters"]["parameters"]["recipe"] for d in deployments if "parameters" in d["parameters"]}
    assert asked == {DEFAULT_RECIPE}
    assert Settings().recipe == GenerateParameters(seeds=["x"], out="y").recipe == makefile("RECIPE") == DEFAULT_RECIPE
    assert inspect.signature(load_model).parameters["name"].default == find_recipe(DEFAULT_RECIPE).model
    assert f"(default: {DEFAULT_RECIPE})" in str(
        inspect.get_annotations(run, eval_str=True)["recipe"].__metadata__[0].help
    )


def test_the_sample_photographs_have_a_manifest_that_is_used():
    smoke = next(
        d for d in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"] if d["name"] == "smoke"
    )
    assert makefile("SEEDS") == smoke["parameters"]["parameters"]["seeds"][0] == "examples/seeds/manifest.csv"
    rows = list(read_seeds([str(MANIFEST)]))
    assert all(isinstance(row, ManifestRow) for row in rows)
    assert sorted(Path(row.seed_uri).name for row in rows) == sorted(path.name for path in SEEDS.glob("*.jpg"))
    assert all(row.prompt and row.license and row.source_url and row.attribution for row in rows)


def test_its_facts_are_those_of_the_attribution():
    table = {}
    for line in (SEEDS / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| (\w+\.jpg) \(.*?\) \| (.+?) \| \[(.+?)\]\(.+?\) \| (\w+) package (\S+)", line):
            table[found[1]] = (found[3], found[2], found[5])
    with MANIFEST.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert (row["license"], row["attribution"], row["source_url"].rpartition("/")[2]) == table[row["seed"]]
    assert len(table) == 9


def test_captions_are_like_those_the_embedded_model_was_trained_with():
    """Short, and read whole: with a paragraph it draws its frames a tenth less sharp (docs/log.md)."""
    for row in read_seeds([str(MANIFEST)]):
        assert re.match(r"an? [a-z]", row.prompt), row.seed_uri
        assert len(row.prompt.encode()) <= 60 < CAPTION_BYTES, row.seed_uri


def test_a_caption_names_another_world_and_reaches_its_row():
    row = next(row for row in read_seeds([str(MANIFEST)]))
    (spec,) = WorldNamer(find_recipe("mini")).name(row, "0" * 64)
    assert spec.prompts == (row.prompt,)
    assert (spec.seed_license, spec.seed_source_url, spec.seed_attribution) == (
        row.license,
        row.source_url,
        row.attribution,
    )
