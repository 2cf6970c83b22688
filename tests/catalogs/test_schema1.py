"""A catalog that the version before wrote (schema 1) is read, queried, compacted and extended.

`schema1/` was made by the last commit of schema version 1 with `lyra run --recipe parallax --ray off` at 32x24: one
world in a snapshot, one committed only. The two files of Gaussians (a megabyte each) were left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from catalogs.card import dataset_card
from catalogs.commit import read_commit
from catalogs.compaction import CompactionSize, compact
from catalogs.current import read_current, worlds_of
from catalogs.find import find_world
from catalogs.query import query, status
from lyra_core import snapshot
from lyra_core.formats.store import open_store
from lyra_core.records import SCHEMA_VERSION, FrameRecord, WorldRecord, arrow_schema

COMPACTED, COMMITTED = "e4630865f498c3fbd0812c1264859830", "fe1b0f5b169c506b66c6e919569a7c5c"
STAGES = ["seed", "video", "gaussians", "quality", "pictures", "encode", "upload"]


@pytest.fixture
def old(tmp_path):
    """A copy of the catalog."""
    shutil.copytree(Path(__file__).parent / "schema1", tmp_path / "worlds")
    return open_store(tmp_path / "worlds", fsync=False)


def test_it_is_of_schema_1(old):
    """Else the tests below say nothing: its part has maps and columns that are gone."""
    ref = snapshot.latest(old)
    assert (ref.version, ref.schema_version) == (1, 1)
    schema = pq.read_schema(old.uri(ref.worlds[0].key))
    assert str(schema.field("stage_s").type).startswith("map<string, double")
    assert {"trajectory_params", "parent_world_id", "split", "lpips"} <= set(schema.names)
    assert set(schema.names) - set(arrow_schema(WorldRecord).names)


def test_status_and_snapshot(old):
    found = status(old)
    assert (found.worlds, found.uncompacted, found.snapshot_version, found.frames) == (2, 1, 1, 162)
    assert snapshot.worlds(old).schema == arrow_schema(WorldRecord)
    assert snapshot.frames(old).schema == arrow_schema(FrameRecord)
    row = WorldRecord.from_row(snapshot.worlds(old).to_pylist()[0])
    assert (row.world_id, row.schema_version, list(row.stage_s)) == (COMPACTED, 1, STAGES)
    assert row == read_commit(old, COMPACTED).world, "the part and the commit tell the same"
    assert find_world(old, COMMITTED[:8]).stage_s["video"] > 0


def test_columns_old_and_new_are_queried(old):
    rows = query(
        old, "SELECT name, psnr_db, stage_s, thumb_uri, trajectory_sha256 FROM worlds ORDER BY name"
    ).to_pylist()
    assert [row["name"] for row in rows] == ["coffee_table", "launch_pad"]
    assert all(row["psnr_db"] > 10 for row in rows)
    assert all([item["stage"] for item in row["stage_s"]] == STAGES for row in rows)
    assert all((row["thumb_uri"], row["trajectory_sha256"]) == (None, None) for row in rows)
    sql = "SELECT item.stage, sum(item.seconds) AS s FROM (SELECT unnest(stage_s) AS item FROM worlds) GROUP BY ALL"
    assert {row["stage"]: row["s"] > 0 for row in query(old, sql).to_pylist()} == dict.fromkeys(STAGES, True)
    assert query(old, "SELECT count(*) AS n FROM frames").to_pylist() == [{"n": 162}]


@pytest.mark.parametrize("new_commits", [False, True])
@pytest.mark.parametrize("max_small_parts", [1, 8])
def test_compaction_writes_its_part_anew(old, sample, new_commits, max_small_parts):
    before = old.read_bytes("catalog/snapshots/v000001.json")
    added = sample.commit_worlds(old, range(2)) if new_commits else []
    ref = compact(old, CompactionSize(max_small_parts=max_small_parts))
    assert (ref.version, ref.schema_version, ref.num_worlds) == (2, SCHEMA_VERSION, 2 + len(added))
    for part in ref.worlds:
        assert pq.read_schema(old.uri(part.key)).equals(arrow_schema(WorldRecord)), "no part of version 1 is left"
    found = {row["world_id"]: WorldRecord.from_row(row) for row in snapshot.worlds(old).to_pylist()}
    for world_id in (COMPACTED, COMMITTED):
        assert found[world_id] == read_commit(old, world_id).world
    assert {record.world_id for record in added} < set(found) or not new_commits
    assert snapshot.frames(old).num_rows == 162 + len(added) * sample.num_frames == ref.num_frames
    assert compact(old) == ref, "once"
    assert old.read_bytes("catalog/snapshots/v000001.json") == before
    assert snapshot.worlds(old, 1)["world_id"].to_pylist() == [COMPACTED], "time travel still works"


def test_an_outdated_part_is_written_anew_without_new_commits(old, sample):
    old.delete(f"catalog/commits/{COMMITTED[:2]}/{COMMITTED}.parquet")
    ref = compact(old)
    assert (ref.version, ref.num_worlds, ref.schema_version) == (2, 1, SCHEMA_VERSION)


def test_both_halves_fit_together(old, sample):
    sample.commit_worlds(old, range(3))
    current = read_current(old)
    table = worlds_of(old, current, ["world_id", "stage_s", "artifacts"])
    assert table.num_rows == 5
    assert len(set(table["world_id"].to_pylist())) == 5


def test_its_card_is_written(old):
    card = dataset_card(old, name="Before")
    assert "schema version 1" in card.readme
    assert json.loads(card.croissant)["name"] == "Before"


def test_a_column_that_was_renamed_keeps_its_values(old):
    """Restricted licenses that a run accepted must not be lost: they keep worlds from being published."""
    ref = snapshot.latest(old)
    part = Path(old.uri(ref.worlds[0].key))
    table = pq.read_table(part)
    column = table.schema.get_field_index("accepted_licences")
    pq.write_table(table.set_column(column, "accepted_licences", [[["nvidia-internal-research"]]]), part)
    assert snapshot.worlds(old)["accepted_licenses"].to_pylist() == [["nvidia-internal-research"]]
    compact(old, CompactionSize())
    assert snapshot.latest(old).schema_version == SCHEMA_VERSION
    rows = query(old, "SELECT accepted_licenses FROM worlds WHERE len(accepted_licenses) > 0").to_pylist()
    assert rows == [{"accepted_licenses": ["nvidia-internal-research"]}]
    text = '{"world_id": "a", "accepted_licences": ["x"]}'
    assert WorldRecord.from_json(text).accepted_licenses == ("x",)
    assert WorldRecord.row_from_json(text)["accepted_licenses"] == ["x"]
