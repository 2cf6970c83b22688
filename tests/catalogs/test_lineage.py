"""Relatives are found from the chain of chunk ids."""

from __future__ import annotations

import pytest

from catalogs.commit import commit
from catalogs.compaction import compact
from catalogs.lineage import Lineage, common_chunks, lineage
from lyra_core.errors import CatalogError
from lyra_core.identity import chain_start, chunk_ids
from lyra_core.records import WorldRecord

SEED = "5" * 64


def walk(path: str, variant: int = 0, **changes: object) -> WorldRecord:
    """A world whose chunks are the letters of a path."""
    chunks = chunk_ids(chain_start(SEED, {"r": 1}, [], "1", variant), [c.encode() for c in path], list(path))
    values = {"seed_sha256": SEED, "recipe_json": '{"r":1}', "trajectory_sha256": path, "prompt": path}
    return WorldRecord(world_id=chunks[-1], chunk_ids=chunks, variant=variant, **{**values, **changes})


def test_relatives(store):
    names = ["ab", "a", "abc", "abcd", "ax", "z", "axy"]
    worlds = {name: walk(name) for name in names}
    worlds |= {"v1": walk("ab", 1), "v2": walk("ab", 2), "other": walk("ab", 3, seed_sha256="6" * 64)}
    for index, record in enumerate(worlds.values()):
        commit(store, record)
        if index == 4:
            compact(store)  # half of the family is in the snapshot

    def ids(*names: str) -> tuple[str, ...]:
        return tuple(worlds[name].world_id for name in names)

    assert lineage(store, worlds["ab"].world_id) == Lineage(
        world_id=worlds["ab"].world_id,
        variants=ids("v1", "v2"),
        extends=ids("a"),
        extended_by=ids("abc", "abcd"),
        branches=tuple(sorted(ids("ax", "axy"))),
    )
    assert lineage(store, worlds["abcd"].world_id).extends == ids("abc", "ab", "a")
    assert lineage(store, worlds["z"].world_id).branches == ()
    with pytest.raises(CatalogError, match="is not committed"):
        lineage(store, "0" * 32)


def test_common_chunks_end_at_the_first_difference():
    assert common_chunks("abc", "abd") == 2
    assert common_chunks("abc", "xbc") == 0
    assert common_chunks("", "abc") == 0
    assert common_chunks("ab", "abc") == 2
