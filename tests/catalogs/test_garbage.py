"""Only what nothing refers to goes, and only when it is old; rows and files agree before and after."""

from __future__ import annotations

import pytest

from catalogs.commit import commit
from catalogs.compaction import compact
from catalogs.garbage import find_garbage, remove_garbage
from catalogs.verify import verify
from lyra_core.errors import CatalogError


def test_files_of_attempts_that_died_or_came_second_go(local, sample):
    kept = sample.commit_worlds(local, range(3))
    compact(local)
    second = sample.store_payload(local, sample.world(1, attempt=2))
    dead = sample.store_payload(local, sample.world(7))
    young = find_garbage(local)
    assert young.keys == (), "an attempt may still run"
    sample.make_older(local)
    garbage = find_garbage(local)
    assert set(garbage.keys) == {second.artifacts[0].key, dead.artifacts[0].key}
    assert garbage.bytes == second.artifacts[0].bytes + dead.artifacts[0].bytes
    assert remove_garbage(local, garbage) == 2
    assert find_garbage(local).keys == ()
    assert verify(local) == []
    assert all(local.exists(record.artifacts[0].key) for record in kept)


def test_files_beside_their_worlds_folder_are_those_of_version_1(local, sample):
    """Catalogs of the first version have no folder an upload; what their rows name stays."""
    record = sample.world(1)
    old_key = f"worlds/{record.world_id[:2]}/{record.world_id}/gaussians.ply"
    put = local.put_bytes(old_key, b"old")
    artifact = sample.artifact(put)
    commit(local, record.with_artifacts([artifact], local.root))
    late = sample.store_payload(local, sample.world(1))
    sample.make_older(local)
    assert find_garbage(local).keys == (late.artifacts[0].key,)


def test_an_age_that_a_running_world_may_have_is_refused(local):
    with pytest.raises(CatalogError, match="wanted more"):
        find_garbage(local, older_than_s=60)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_verify_names_what_differs(kind, request, sample):
    place = request.getfixturevalue(kind)
    records = sample.commit_worlds(place, range(4))
    assert verify(place) == []
    place.put_bytes(records[0].artifacts[0].key, b"x" * records[0].artifacts[0].bytes)
    place.put_bytes(records[1].artifacts[0].key, b"torn")
    place.delete(records[2].artifacts[0].key)
    found = {mismatch.world_id: mismatch.problem for mismatch in verify(place)}
    assert set(found) == {record.world_id for record in records[:3]}
    assert "SHA-256" in found[records[0].world_id]
    assert found[records[1].world_id] == f"has 4 bytes, the row says {records[1].artifacts[0].bytes}"
    assert found[records[2].world_id] == "does not exist"
    assert len(verify(place, sizes_only=True)) == 2
