"""The catalog as of now: the latest snapshot and the commits no snapshot holds yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalogs.commit import committed_ids, read_commits
from catalogs.compaction import compacted_ids
from lyra_core import snapshot
from lyra_core.formats.store import Store
from lyra_core.snapshot import SnapshotRef

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The two halves of the catalog; no world is in both.

    Attributes:
        ref: the latest snapshot, None before the first compaction.
        recent_worlds: rows of `worlds` that are not in it.
        recent_frames: rows of `frames` that are not in it.
    """

    ref: SnapshotRef | None
    recent_worlds: pa.Table
    recent_frames: pa.Table


def read_current(store: Store) -> Current:
    """Both halves, consistent with each other: commits that arrive meanwhile may be missing, none is doubled.

    Raises:
        CatalogError: a commit or the snapshot cannot be read.
    """
    ref = snapshot.latest(store)
    recent = committed_ids(store) - compacted_ids(store, ref)
    worlds, frames = read_commits(store, sorted(recent))
    return Current(ref=ref, recent_worlds=worlds, recent_frames=frames)


def worlds_of(store: Store, current: Current, columns: Sequence[str]) -> pa.Table:
    """Some columns of the `worlds` table, of both halves.

    Raises:
        CatalogError: the snapshot cannot be read.
    """
    import pyarrow as pa

    compacted = snapshot.table(store, current.ref, "worlds", columns)
    return pa.concat_tables([compacted, current.recent_worlds.select(list(columns))])
