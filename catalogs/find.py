"""What people name: a catalog by its place, a world by the beginning of its id."""

from __future__ import annotations

from catalogs.commit import read_commit
from lyra_core.errors import CatalogError
from lyra_core.escape import for_shell
from lyra_core.formats.store import Store
from lyra_core.layout import ATTEMPTS, COMMITS, REJECTS, SNAPSHOTS
from lyra_core.records import WorldRecord

MIN_PREFIX = 2


def find_world(store: Store, id_prefix: str) -> WorldRecord:
    """The committed world whose id begins like this.

    Raises:
        CatalogError: none or several do, or the prefix is too short to look up.
    """
    prefix = id_prefix.strip().lower()
    if len(prefix) < MIN_PREFIX or set(prefix) - set("0123456789abcdef"):
        raise CatalogError(
            f"a world id wants at least {MIN_PREFIX} hex digits, found {id_prefix!r}; "
            f'list ids with: lyra query {for_shell(store.root)} "SELECT world_id, name FROM worlds"'
        )
    world_ids = [
        info.key.rsplit("/", 1)[1].removesuffix(".parquet") for info in store.list(f"{COMMITS}{prefix[:2]}/{prefix}")
    ]
    if len(world_ids) != 1:
        what = f"{len(world_ids)} worlds ({', '.join(i[:12] for i in world_ids[:5])}, ...)" if world_ids else "no world"
        raise CatalogError(f"wanted one world whose id begins with {prefix!r} in {store.root}, found {what}")
    return read_commit(store, world_ids[0]).world


def require_catalog(store: Store) -> None:
    """Refuse a place where nothing was ever made, which a mistyped path is; a catalog without worlds is one.

    Raises:
        CatalogError: neither a commit nor a reject, an attempt or a snapshot is there.
    """
    if _is_catalog(store, ""):
        return
    below = next((folder for folder in ("worlds", "out") if _is_catalog(store, f"{folder}/")), None)
    hint = f"did you mean {store.uri(below)}?" if below else "check the path (worlds are put there by lyra run --out)"
    raise CatalogError(
        f"no catalog in {store.root}: wanted a place where worlds were stored, found nothing below catalog/; {hint}"
    )


def _is_catalog(store: Store, folder: str) -> bool:
    parts = (SNAPSHOTS, COMMITS, REJECTS, ATTEMPTS)
    return any(next(iter(store.list(f"{folder}{part}")), None) is not None for part in parts)
