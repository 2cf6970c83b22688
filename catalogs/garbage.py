"""Finds and removes what nothing refers to: files of attempts that died or came second, parts of killed compactions.

Only what is older than any running attempt may be is looked at, and payloads are listed before commits are: a file
that a commit names by the time it is read stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from catalogs.commit import committed_ids, read_commits
from lyra_core import snapshot
from lyra_core.errors import CatalogError
from lyra_core.formats.local_store import LocalStore
from lyra_core.formats.store import ObjectInfo, Store
from lyra_core.layout import SNAPSHOTS, UPLOAD, WORLDS

DAY_S = 86_400.0
SHORTEST_AGE_S = 3_600.0
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What nothing refers to.

    Attributes:
        keys: files of worlds and parts of snapshots.
        bytes: their size.
    """

    keys: tuple[str, ...]
    bytes: int


def find_garbage(store: Store, older_than_s: float = DAY_S) -> Garbage:
    """Old files that no commit and no snapshot names.

    Args:
        store: of the catalog.
        older_than_s: files younger than this may belong to an attempt that still runs; at least an hour.

    Raises:
        CatalogError: an age under an hour, or a commit that cannot be read.
        StoreError: the store cannot be listed.
    """
    if older_than_s < SHORTEST_AGE_S:
        raise CatalogError(
            f"files younger than {SHORTEST_AGE_S / 3600:.0f} h may belong to a world in the making, "
            f"found an age of {older_than_s:g} s; wanted more"
        )
    before_ns = time.time_ns() - int(older_than_s * 1e9)
    unneeded = [*_old(_unnamed_payloads(store), before_ns), *_old(_unlisted_parts(store), before_ns)]
    return Garbage(keys=tuple(info.key for info in unneeded), bytes=sum(info.bytes for info in unneeded))


def remove_garbage(store: Store, garbage: Garbage, older_than_s: float = DAY_S) -> int:
    """Delete what `find_garbage` found, and unfinished files of killed writers; returns how many files went."""
    for key in garbage.keys:
        store.delete(key)
    unfinished = store.sweep(older_than_s) if isinstance(store, LocalStore) else 0
    return len(garbage.keys) + unfinished


def _old(infos: Iterator[ObjectInfo], before_ns: int) -> Iterator[ObjectInfo]:
    return (info for info in infos if info.mtime_ns is not None and info.mtime_ns < before_ns)


def _unnamed_payloads(store: Store) -> Iterator[ObjectInfo]:
    """Files of worlds that no commit names. Worlds with files of one upload only are not read: it is the commit's."""
    payloads: dict[str, list[ObjectInfo]] = {}
    for info in store.list(WORLDS):
        payloads.setdefault(_world_id(info.key), []).append(info)
    committed = committed_ids(store)
    doubtful = []
    for world_id, infos in payloads.items():
        if world_id not in committed:
            yield from infos
        elif len({_upload(info.key) for info in infos}) > 1:
            doubtful.append(world_id)
    for start in range(0, len(doubtful), _BATCH):
        batch = doubtful[start : start + _BATCH]
        worlds, _ = read_commits(store, batch)
        for world_id, artifacts in zip(batch, worlds["artifacts"].to_pylist(), strict=True):
            named = {artifact["key"] for artifact in artifacts or ()}
            yield from (info for info in payloads[world_id] if info.key not in named)


def _unlisted_parts(store: Store) -> Iterator[ObjectInfo]:
    infos = [info for info in store.list(SNAPSHOTS) if info.key.endswith(".parquet")]
    refs = [snapshot.read(store, version) for version in snapshot.versions(store)]
    listed = {part.key for ref in refs for part in (*ref.worlds, *ref.frames)}
    return (info for info in infos if info.key not in listed)


def _world_id(key: str) -> str:
    return key.split("/")[2]


def _upload(key: str) -> str:
    """The folder of an upload; '' for files of version 1, which lay in the world's own folder."""
    folder = key.split("/")[3]
    return folder if UPLOAD.fullmatch(folder) else ""
