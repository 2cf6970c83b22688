"""Where everything lies in a store: the one list of keys.

worlds/<id[:2]>/<id>/<upload>/...               payloads of a world, one folder for each time they were stored; the
                                                commit names the folder that counts (before 0.2: no <upload> level)
catalog/commits/<id[:2]>/<id>.parquet           its row: the world exists from here on
catalog/attempts/<id[:2]>/<id>/<n>.json         what happened to it before
catalog/rejects/<run>/<ordinal>.parquet         seeds that gave no world (-<variant> after the first variant)
catalog/simchecks/<id[:2]>/<id>.parquet         how it did in a simulator, measured later; the newest time counts
catalog/snapshots/vNNNNNN.json                  an immutable version of the catalog, and its parts:
catalog/snapshots/vNNNNNN/{worlds,frames}-*.parquet
catalog/releases/<name>.json                    a version that was published under a name, and its parts:
catalog/releases/<name>/{worlds,frames}-*.parquet
"""

from __future__ import annotations

import re
import secrets

from lyra_core.errors import CatalogError

WORLDS = "worlds/"
COMMITS = "catalog/commits/"
ATTEMPTS = "catalog/attempts/"
REJECTS = "catalog/rejects/"
SIMCHECKS = "catalog/simchecks/"
SNAPSHOTS = "catalog/snapshots/"
RELEASES = "catalog/releases/"
_ID = re.compile(r"[0-9a-f]{32}")
UPLOAD = re.compile(r"[0-9a-f]{12}")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def new_upload() -> str:
    """Name of a folder for one upload of a world's files: no two writers ever write under the same key."""
    return secrets.token_hex(6)


def upload_prefix(world_id: str, upload: str) -> str:
    """Prefix of the payloads of one upload of a world.

    Raises:
        CatalogError: an id or upload that cannot be part of a key.
    """
    if not UPLOAD.fullmatch(upload):
        raise CatalogError(f"an upload has 12 lower-case hex digits, found {upload!r}")
    return f"{WORLDS}{_sharded(world_id)}/{upload}/"


def commit_key(world_id: str) -> str:
    """Key of a world's commit."""
    return f"{COMMITS}{_sharded(world_id)}.parquet"


def attempts_prefix(world_id: str) -> str:
    """Prefix of the attempts of a world."""
    return f"{ATTEMPTS}{_sharded(world_id)}/"


def reject_key(run_id: str, ordinal: int, variant: int = 0) -> str:
    """Key of a rejected manifest row, or of one variant of it.

    Raises:
        CatalogError: a run id that cannot be part of a key, or a negative ordinal.
    """
    if not _RUN.fullmatch(run_id) or ordinal < 0:
        raise CatalogError(
            "a reject needs a run id of letters, digits, '.', '_' and '-' and an ordinal from 0, "
            f"found {run_id!r} and {ordinal}"
        )
    suffix = f"-{variant}" if variant else ""
    return f"{REJECTS}{run_id}/{ordinal:09d}{suffix}.parquet"


def simcheck_key(world_id: str) -> str:
    """Key of what a simulator said of a world."""
    return f"{SIMCHECKS}{_sharded(world_id)}.parquet"


def snapshot_key(version: int) -> str:
    """Key of a snapshot's description."""
    return f"{SNAPSHOTS}v{version:06d}.json"


def part_key(version: int, name: str) -> str:
    """Key of a part file first listed in this version."""
    return f"{SNAPSHOTS}v{version:06d}/{name}"


def release_key(name: str) -> str:
    """Key of a release's description.

    Raises:
        CatalogError: a name that cannot be part of a key.
    """
    if not _RUN.fullmatch(name):
        raise CatalogError(f"a release is named with letters, digits, '.', '_' and '-', found {name!r}")
    return f"{RELEASES}{name}.json"


def release_part_key(name: str, part: str) -> str:
    """Key of a part file of a release."""
    return f"{release_key(name).removesuffix('.json')}/{part}"


def _sharded(world_id: str) -> str:
    if not _ID.fullmatch(world_id):
        raise CatalogError(f"a world id has 32 lower-case hex digits, found {world_id!r}")
    return f"{world_id[:2]}/{world_id}"
