"""A release holds only what may be passed on, says what it left out, and never changes."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest

from catalogs.compaction import compact
from catalogs.garbage import find_garbage
from catalogs.publish import publish
from lyra_core import snapshot
from lyra_core.errors import CatalogError, LicenseError

CASES = {
    "restricted weights": {"accepted_licenses": ("nvidia-internal",)},
    "unknown weights": {"weights_licenses": ()},
    "unknown photograph": {"seed_license": None},
    "no derivatives": {"seed_license": "CC-BY-ND-4.0"},
    "no commerce": {"seed_license": "CC-BY-NC-4.0"},
    "no credit": {"seed_license": "CC-BY-4.0", "seed_attribution": None},
}


def test_a_clean_catalog_is_frozen(local, sample):
    sample.commit_worlds(local, range(6))
    compact(local)
    release = publish(local, "v1.0", title="Rooms")
    assert (release.num_worlds, release.refused, release.version) == (6, {}, 1)
    document = json.loads(local.read_bytes("catalog/releases/v1.0.json"))
    (part,) = document["worlds"]
    data = local.read_bytes(part["key"])
    assert hashlib.sha256(data).hexdigest() == part["sha256"]
    assert pq.read_table(f"{local.root}/{part['key']}").num_rows == part["rows"] == 6
    assert document["num_frames"] == 6 * sample.num_frames
    readme = local.read_bytes("README.md").decode()
    assert hashlib.sha256(readme.encode()).hexdigest() == document["readme_sha256"]
    assert f'- "{part["key"]}"' in readme
    assert 'open("catalog/releases/v1.0.json")' in readme
    assert part["key"] in local.read_bytes("croissant.json").decode()

    # Later worlds do not change it, the name is taken, and the snapshots know nothing of it.
    sample.commit_worlds(local, range(6, 8))
    compact(local)
    with pytest.raises(CatalogError, match=r"the release 'v1.0' of .* exists and is never changed"):
        publish(local, "v1.0", title="Rooms")
    assert local.read_bytes("catalog/releases/v1.0.json") == json.dumps(document, indent=1).encode()
    assert publish(local, "v1.1", title="Rooms").num_worlds == 8
    assert publish(local, "v1.0-again", title="Rooms", version=1).num_worlds == 6
    assert snapshot.versions(local) == [1, 2]
    sample.make_older(local)
    assert not [item for item in find_garbage(local).keys if "releases" in item]


@pytest.mark.parametrize("case", sorted(CASES))
def test_what_may_not_be_passed_on_is_refused(local, sample, case):
    sample.commit_worlds(local, range(2), seed_attribution="A. Person")
    (bad,) = sample.commit_worlds(local, range(2, 3), **CASES[case])
    compact(local)
    dry = publish(local, "v1", title="Rooms", dry_run=True)
    assert list(dry.refused) == [bad.world_id]
    assert dry.num_worlds == 2
    with pytest.raises(LicenseError, match=f"1 of 3 worlds may not be published: {bad.world_id[:12]}"):
        publish(local, "v1", title="Rooms")
    assert not local.exists("catalog/releases/v1.json")
    assert not local.exists("README.md")
    release = publish(local, "v1", title="Rooms", leave_out=True)
    document = json.loads(local.read_bytes("catalog/releases/v1.json"))
    assert document["left_out"] == release.refused
    stored = pq.read_table(f"{local.root}/{document['worlds'][0]['key']}")
    assert bad.world_id not in stored["world_id"].to_pylist()
    frames = pq.read_table(f"{local.root}/{document['frames'][0]['key']}")
    assert set(frames["world_id"].to_pylist()) == set(stored["world_id"].to_pylist())


def test_nothing_to_publish(local, sample):
    with pytest.raises(CatalogError, match="no snapshot to publish"):
        publish(local, "v1", title="x")
    sample.commit_worlds(local, range(1), seed_license=None)
    compact(local)
    with pytest.raises(CatalogError, match="no world that may be published"):
        publish(local, "v1", title="x", leave_out=True)
    with pytest.raises(CatalogError, match="a release is named with letters"):
        publish(local, "../v1", title="x")


@pytest.mark.slow
def test_its_croissant_is_valid(local, sample):
    croissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant to check against its reader")
    sample.commit_worlds(local, range(3))
    compact(local)
    publish(local, "v1", title="Rooms")
    dataset = croissant.Dataset(f"{local.root}/croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    assert len(list(dataset.records("worlds-rows"))) == 3
