"""What a simulator said is kept beside commits, replaced when asked again, and seen by queries."""

from __future__ import annotations

from catalogs.commit import commit, read_commit
from catalogs.compaction import compact
from catalogs.garbage import find_garbage
from catalogs.query import query
from catalogs.simchecks import list_simchecks, record_simcheck
from lyra_core.formats.store import open_store
from lyra_core.records import SimcheckRecord, WorldRecord, utc_now

A, B, C = (digit * 32 for digit in "abc")


def test_results_are_replaced_and_seen_by_queries(tmp_path):
    store = open_store(tmp_path, fsync=False)
    for world, name in ((A, "a"), (B, "b")):
        commit(store, WorldRecord(world_id=world, name=name))
    compact(store)
    commit(store, WorldRecord(world_id=C, name="c"))
    assert query(store, "SELECT drop_test_ok FROM worlds")["drop_test_ok"].to_pylist() == [None] * 3
    record_simcheck(store, SimcheckRecord(world_id=A, drop_test_ok=False, reasons=("the ball",), created_at=utc_now()))
    record_simcheck(store, SimcheckRecord(world_id=C, reasons=("no floor",)))
    again = SimcheckRecord(world_id=A, drop_test_ok=True, ball_error_m=0.5, mjcf="stored", created_at=utc_now())
    record_simcheck(store, again)
    assert list_simchecks(store) == [again, SimcheckRecord(world_id=C, reasons=("no floor",))]
    rows = query(store, "SELECT name, drop_test_ok FROM worlds ORDER BY name").to_pylist()
    assert [row["drop_test_ok"] for row in rows] == [True, None, None]
    joined = query(store, "SELECT w.name, s.reasons FROM worlds w JOIN simchecks s USING (world_id) ORDER BY name")
    assert joined.to_pylist() == [{"name": "a", "reasons": []}, {"name": "c", "reasons": ["no floor"]}]
    assert read_commit(store, A).world.drop_test_ok is None  # commits stay as they are
    assert not find_garbage(store).keys


def test_without_results_the_table_is_there_and_empty(tmp_path):
    store = open_store(tmp_path, fsync=False)
    commit(store, WorldRecord(world_id=A))
    assert query(store, "SELECT * FROM simchecks").num_rows == 0
