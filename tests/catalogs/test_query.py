"""SQL sees every commit once, compacted or not, on a disk and in a bucket."""

from __future__ import annotations

import pytest

from catalogs.commit import commit
from catalogs.compaction import compact
from catalogs.current import read_current, worlds_of
from catalogs.query import Status, connect, query, status
from catalogs.rejects import reject
from lyra_core.errors import CatalogError
from lyra_core.layout import commit_key
from lyra_core.records import FrameRecord, RejectRecord, WorldRecord, arrow_schema


@pytest.fixture(params=["local", "memory", "s3"])
def catalog(request, tmp_path, sample):
    """Six compacted worlds, two more commits and one open reject."""
    from lyra_core.formats.store import open_store

    if request.param == "memory":
        store = open_store(f"memory://{tmp_path.name}")
    else:
        store = request.getfixturevalue(request.param)
    sample.commit_worlds(store, range(6))
    compact(store)
    sample.commit_worlds(store, range(6, 8))
    reject(store, RejectRecord(run_id="r", ordinal=3, stage="seed", reason="no image", seed_uri="x.jpg"))
    return store


def test_tables_show_everything_once(catalog, sample):
    worlds = query(catalog, "SELECT * FROM worlds ORDER BY psnr_db")
    assert [WorldRecord.from_row(row) for row in worlds.to_pylist()] == [
        sample.store_payload(catalog, sample.world(index)) for index in range(8)
    ]
    frames = query(catalog, "SELECT * FROM frames ORDER BY world_id, frame")
    assert [FrameRecord.from_row(row) for row in frames.to_pylist()] == [
        frame for row in sorted(worlds["world_id"].to_pylist()) for frame in sample.camera_rows(row)
    ]
    assert query(catalog, "SELECT ordinal, reason FROM rejects").to_pylist() == [{"ordinal": 3, "reason": "no image"}]


def test_sql_filters_joins_and_reaches_into_nested_columns(catalog, sample):
    sql = """
        SELECT w.name, count(*) AS frames, any_value(list_filter(w.stage_s, lambda s: s.stage = 'video')[1].seconds)
                   AS video_s,
               any_value(w.artifacts[1].role) AS role
        FROM worlds w JOIN frames f USING (world_id)
        WHERE w.accepted AND w.psnr_db >= 25 AND w.created_at > TIMESTAMPTZ '2026-11-22 08:00:00+00'
        GROUP BY w.name ORDER BY w.name
    """
    assert query(catalog, sql).to_pylist() == [
        {"name": name, "frames": sample.num_frames, "video_s": 1.5, "role": "ply"} for name in ("seed-5", "seed-6")
    ]


def test_status_counts(catalog):
    found = status(catalog)
    assert found == Status(
        worlds=8,
        accepted=6,
        rejects_open=1,
        uncompacted=2,
        snapshot_version=1,
        bytes=8 * 96,
        splats=100 * sum(range(8)),
        frames=40,
    )


def test_an_empty_catalog_has_empty_tables(store):
    assert query(store, "SELECT * FROM worlds").num_rows == 0
    assert query(store, "SELECT count(*) AS n FROM frames").to_pylist() == [{"n": 0}]
    assert query(store, "SELECT * FROM rejects").num_rows == 0
    assert status(store) == Status(
        worlds=0, accepted=0, rejects_open=0, uncompacted=0, snapshot_version=None, bytes=0, splats=0, frames=0
    )


def test_bad_sql_shows_what_there_is(catalog):
    with pytest.raises(CatalogError, match=r"(?s)sharpness.*worlds: world_id, .*psnr_db.*also: frames, rejects"):
        query(catalog, "SELECT sharpness FROM worlds")
    with pytest.raises(CatalogError, match=r"(?s)galaxies.*worlds: .*frames: .*rejects: "):
        query(catalog, "SELECT * FROM galaxies")
    with pytest.raises(CatalogError, match=r"(?s)the query failed.*tables and columns"):
        query(catalog, "SELEKT")
    with pytest.raises(CatalogError, match="wanted a SELECT"):
        query(catalog, "-- only a comment")


def test_a_commit_in_the_snapshot_is_not_read_again(local, sample):
    record = sample.world(1)
    commit(local, record)
    compact(local)
    local.put_bytes(commit_key(record.world_id), b"torn, but nobody looks")
    assert query(local, "SELECT name FROM worlds").to_pylist() == [{"name": "seed-1"}]


def test_a_connection_can_be_kept(catalog):
    connection = connect(catalog)
    assert connection.execute("SELECT count(*) FROM worlds").fetchone() == (8,)
    assert connection.execute("SELECT max(frame) FROM frames").fetchone() == (4,)
    names = [row[0] for row in connection.execute("DESCRIBE worlds").fetchall()]
    assert names == arrow_schema(WorldRecord).names


def test_both_halves_together_are_the_catalog(catalog):
    current = read_current(catalog)
    assert (current.ref.num_worlds, current.recent_worlds.num_rows, current.recent_frames.num_rows) == (6, 2, 10)
    assert worlds_of(catalog, current, ["name"]).num_rows == 8
