"""How worlds relate: a variant of the same request, or a longer walk through the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalogs.current import read_current, worlds_of
from lyra_core.errors import CatalogError
from lyra_core.formats.store import Store

_COLUMNS = ("world_id", "chunk_ids", "variant", "seed_sha256", "recipe_json", "trajectory_sha256", "prompt")
_REQUEST = ("seed_sha256", "recipe_json", "trajectory_sha256", "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The committed relatives of a world.

    Attributes:
        world_id: the world.
        variants: other worlds of the same seed, recipe, cameras and prompt, by variant.
        extends: worlds whose video is the beginning of this one's, longest first.
        extended_by: worlds whose video begins with this one's, shortest first.
        branches: worlds that share the first chunks and then go elsewhere.
    """

    world_id: str
    variants: tuple[str, ...]
    extends: tuple[str, ...]
    extended_by: tuple[str, ...]
    branches: tuple[str, ...]


def lineage(store: Store, world_id: str) -> Lineage:
    """The relatives of a world, from the chain of its chunk ids.

    Raises:
        CatalogError: it is not committed.
    """
    rows = {row["world_id"]: row for row in worlds_of(store, read_current(store), _COLUMNS).to_pylist()}
    if world_id not in rows:
        raise CatalogError(f"world {world_id} is not committed in {store.root}")
    own = rows.pop(world_id)
    shared = {other: common_chunks(own["chunk_ids"], row["chunk_ids"]) for other, row in rows.items()}
    length = len(own["chunk_ids"])
    related = sorted(other for other, count in shared.items() if count)

    def chunks(other: str) -> int:
        return len(rows[other]["chunk_ids"])

    extends = [other for other in related if shared[other] == chunks(other) < length]
    extended_by = [other for other in related if shared[other] == length < chunks(other)]
    variants = [other for other, row in rows.items() if _is_variant(own, row)]
    return Lineage(
        world_id=world_id,
        variants=tuple(sorted(variants, key=lambda other: (rows[other]["variant"], other))),
        extends=tuple(sorted(extends, key=chunks, reverse=True)),
        extended_by=tuple(sorted(extended_by, key=chunks)),
        branches=tuple(o for o in related if shared[o] < min(length, chunks(o))),
    )


def common_chunks(left: Sequence[str], right: Sequence[str]) -> int:
    """How many chunks two worlds share from the start; ids chain, so the last equal pair decides."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _is_variant(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (
        own["seed_sha256"] is not None
        and all(own[name] == other[name] for name in _REQUEST)
        and own["variant"] != other["variant"]
    )
