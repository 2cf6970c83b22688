"""The card says what is in the snapshot, and what must not leave the house."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from catalogs.card import dataset_card, write_card
from catalogs.commit import commit
from catalogs.compaction import compact
from lyra_core import snapshot
from lyra_core.errors import CatalogError, LicenseError
from lyra_core.records import FrameRecord, WorldRecord, arrow_schema

LYRA = "NVIDIA Internal Scientific Research and Development Model License"


def test_the_card_describes_the_snapshot(local, sample):
    sample.commit_worlds(local, range(8))
    ref = compact(local)
    sample.commit_worlds(local, range(8, 9))
    card = write_card(local, name="Rooms: a test", publishable=True)
    readme = local.read_bytes("README.md").decode()
    assert readme == card.readme
    front = readme.split("---\n")[1]
    assert 'pretty_name: "Rooms: a test"\nlicense: cc-by-4.0\n' in front
    assert all(f'- "{part.key}"' in front for part in (*ref.worlds, *ref.frames))
    assert "8 explorable 3D worlds (6 passed every quality gate)" in readme
    assert "| CC0-1.0 | 8 |" in readme
    assert "| Apache-2.0 | 8 |" in readme
    assert "| mini | 8 |" in readme
    assert "Not for publication" not in readme
    assert "license is unknown" not in readme
    for name in arrow_schema(WorldRecord).names:
        assert f"| `{name}` | " in readme


def test_the_card_of_an_older_version(local, sample):
    sample.commit_worlds(local, range(2))
    compact(local)
    sample.commit_worlds(local, range(2, 4))
    compact(local)
    assert "2 explorable" in dataset_card(local, name="x", version=1).readme
    assert "4 explorable" in dataset_card(local, name="x").readme
    with pytest.raises(CatalogError, match="no snapshot of version 9"):
        dataset_card(local, name="x", version=9)


def test_the_code_of_the_card_runs(local, sample, monkeypatch):
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow.dataset

    sample.commit_worlds(local, range(5))
    compact(local)
    sample.commit_worlds(local, range(5, 7))
    compact(local)
    code = re.search(r"```python\n(.*?)```", write_card(local, name="x").readme, re.DOTALL)[1].splitlines()
    monkeypatch.chdir(local.root)
    scope = {"duckdb": duckdb, "pandas": pd, "polars": pl, "pyarrow": pyarrow}
    exec("\n".join(code[:2]), scope)
    readers = [line for line in code[2:] if line]
    assert [line.split(".")[0] for line in readers] == ["duckdb", "pyarrow", "polars", "pandas"]
    counts = [eval(line.partition("#")[0], scope) for line in readers]
    assert [counts[0].shape[0], counts[1].count_rows(), counts[2].height, len(counts[3])] == [7] * 4


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weights_licenses": (LYRA,), "accepted_licenses": ("lyra2",)}, LYRA),
        ({"accepted_licenses": ("lyra2",)}, "lyra2"),
        ({"weights_licenses": ("CC-BY-NC-4.0",)}, "CC-BY-NC-4.0"),
        ({"weights_licenses": ()}, "weights of unknown license"),
    ],
)
def test_restricted_weights_are_flagged_and_not_published(local, sample, changes, why):
    sample.commit_worlds(local, range(3))
    commit(local, sample.world(3, **changes))
    compact(local)
    with pytest.raises(LicenseError, match=rf"1 of 4 worlds cannot be published.*{sample.world(3).world_id}.*{why}"):
        write_card(local, name="x", publishable=True)
    assert not local.exists("README.md")
    card = write_card(local, name="x")
    assert card.restricted == 1
    assert "**Not for publication: 1 worlds" in card.readme
    assert why in card.readme


def test_worlds_without_weights_are_free(local, sample):
    commit(local, sample.world(0, weights_licenses=(), weights_digests=(), seed_license=None, output_license=None))
    compact(local)
    card = dataset_card(local, name="x", publishable=True)
    assert "The seed's license is unknown for 1 worlds" in card.readme
    assert "license: unknown" in card.readme


def test_a_card_needs_a_snapshot(local):
    with pytest.raises(CatalogError, match="compact the catalog first"):
        dataset_card(local, name="x")


def test_croissant_lists_parts_with_digests_and_columns(local, sample):
    sample.commit_worlds(local, range(5))
    ref = compact(local)
    write_card(local, name="Rooms")
    document = json.loads(local.read_bytes("croissant.json"))
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert document["license"] == "CC-BY-4.0"
    files = {item["contentUrl"]: item for item in document["distribution"] if item["@type"] == "cr:FileObject"}
    assert set(files) == {part.key for part in (*ref.worlds, *ref.frames)}
    for key, item in files.items():
        data = local.read_bytes(key)
        assert item["sha256"] == hashlib.sha256(data).hexdigest()
        assert item["contentSize"] == f"{len(data)} B"
    sets = {item["@id"]: item["includes"] for item in document["distribution"] if item["@type"] == "cr:FileSet"}
    assert sets["worlds"] == [part.key for part in ref.worlds]
    columns = {r["name"]: {f["source"]["extract"]["column"]: f for f in r["field"]} for r in document["recordSet"]}
    assert set(columns["worlds"]) == set(arrow_schema(WorldRecord).names) - {"artifacts", "stage_s"}
    assert set(columns["frames"]) == set(arrow_schema(FrameRecord).names)
    assert (columns["frames"]["w2c"]["isArray"], columns["frames"]["w2c"]["arrayShape"]) == (True, "16")
    assert columns["worlds"]["psnr_db"]["dataType"] == "cr:Float32"
    assert columns["worlds"]["chunk_ids"]["arrayShape"] == "-1"
    assert snapshot.latest(local).num_worlds == 5


def test_croissant_is_accepted_by_its_own_reader(local, sample):
    croissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant to check against its reader")
    sample.commit_worlds(local, range(5))
    compact(local)
    write_card(local, name="Rooms")
    dataset = croissant.Dataset(local.uri("croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert len(list(dataset.records("worlds-rows"))) == 5
    assert len(list(dataset.records("frames-rows"))) == 5 * sample.num_frames
