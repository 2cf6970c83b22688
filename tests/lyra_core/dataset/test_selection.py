"""Worlds chosen by SQL, expressions, ids and photographs; what cannot be chosen says why."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from lyra_core.dataset import open_dataset
from lyra_core.dataset.split import split_of
from lyra_core.errors import CatalogError, ConfigError


def ids(worlds) -> list[str]:
    return [world_id[0] for world_id in worlds.table["world_id"].to_pylist()]


def test_conditions_add_up(worlds):
    opened = open_dataset(worlds)
    assert ids(opened) == ["a", "b", "c", "d"]
    assert ids(opened.where("accepted AND psnr_db > 20.5")) == ["b", "c"]
    assert ids(opened.where("accepted").where(pc.field("psnr_db") < 21.5)) == ["a", "b"]
    assert ids(opened.only(["d" * 32, "e" * 32])) == ["d"]
    assert (opened.version, len(opened.where("false"))) == (1, 0)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("psnr > 20", "columns: world_id"),
        ("accepted; DROP TABLE worlds", "failed"),
        ("world_id IN (SELECT content FROM read_text('/etc/hostname'))", "failed"),
        ("drop_test_ok", "SELECT world_id FROM simchecks"),
    ],
)
def test_bad_conditions_are_one_sentence(worlds, condition, said):
    with pytest.raises(CatalogError, match=said):
        open_dataset(worlds).where(condition)


def test_a_place_without_a_snapshot_is_refused(tmp_path, worlds):
    with pytest.raises(CatalogError, match="has no snapshot"):
        open_dataset(tmp_path)
    with pytest.raises(CatalogError, match="no snapshot of version 7"):
        open_dataset(worlds, version=7)


def test_no_photograph_is_in_two_parts(worlds):
    opened = open_dataset(worlds)
    parts = [opened.split(name, {"one": 0.5, "two": 0.5}) for name in ("one", "two")]
    assert sum(map(len, parts)) == 4
    seeds = [set(part.table["seed_sha256"].to_pylist()) for part in parts]
    assert not seeds[0] & seeds[1]
    with pytest.raises(ConfigError, match="has the parts train, val, test"):
        opened.split("training")


def test_a_split_depends_on_the_photograph_alone_and_has_its_shares():
    names = [split_of(f"{i:064x}") for i in range(3000)]
    assert names[17] == split_of(f"{17:064x}")
    assert names.count("train") / 3000 == pytest.approx(0.8, abs=0.03)
    assert names.count("val") / 3000 == pytest.approx(0.1, abs=0.02)
    assert {split_of(f"{i:064x}", {"train": 1.0, "test": 0.0}) for i in range(100)} == {"train"}
    with pytest.raises(ConfigError, match="sum to 1"):
        split_of("a", {"train": 0.5, "test": 0.1})
