"""A named, immutable version of a catalog that may be passed on: rows whose licenses forbid it are refused, by name.

catalog/releases/<name>.json                       the description, created last and only if absent
catalog/releases/<name>/{worlds,frames}-*.parquet  its own parts: a release may leave worlds out

README.md and croissant.json at the root of the store describe the newest release.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from catalogs.card import PERMISSIVE, Card, card_of, restricted_worlds
from lyra_core import snapshot
from lyra_core.errors import CatalogError, LicenseError
from lyra_core.escape import for_terminal
from lyra_core.formats.store import Store
from lyra_core.layout import new_upload, release_key, release_part_key
from lyra_core.records import utc_now
from lyra_core.snapshot import PartFile, SnapshotRef

if TYPE_CHECKING:
    import pyarrow as pa

# Licenses of photographs that let a work made from them be passed on by anybody, besides those of weights; SPDX ids in
# lower case. Those that forbid derivatives (ND) or commercial use (NC) are not among them.
PHOTOGRAPHS = PERMISSIVE | {
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-sa-2.0", "cc-by-sa-2.5", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-pddc", "pddl-1.0", "odc-by-1.0", "public-domain"),
}
# These want to be credited.
CREDIT = re.compile(r"cc-by|odc-by", re.IGNORECASE)
_COLUMNS = (
    *("world_id", "name", "seed_license", "seed_attribution", "accepted_licenses", "weights_licenses"),
    "weights_digests",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a release holds, or would.

    Attributes:
        name: of the release.
        version: of the snapshot it freezes.
        num_worlds: those it holds.
        refused: by world id, why a world may not be passed on.
        card: README.md and croissant.json; None of a dry run.
    """

    name: str
    version: int
    num_worlds: int
    refused: dict[str, str]
    card: Card | None


def publish(
    store: Store, name: str, *, title: str, version: int | None = None, leave_out: bool = False, dry_run: bool = False
) -> Release:
    """Freeze a snapshot under a name.

    Args:
        store: where the catalog lies.
        name: letters, digits, '.', '_' and '-'.
        title: of the data set, for its card.
        version: of the snapshot; the latest if None.
        leave_out: publish without the refused worlds instead of refusing all.
        dry_run: write nothing and refuse nothing, only tell.

    Raises:
        CatalogError: no such snapshot, the name is taken or cannot be one, or nothing is left to publish.
        LicenseError: some worlds may not be passed on; the message names them.
    """
    key = release_key(name)
    if store.exists(key):
        raise CatalogError(f"the release {name!r} of {store.root} exists and is never changed; choose another name")
    ref = snapshot.latest(store) if version is None else snapshot.read(store, version)
    if ref is None:
        raise CatalogError(f"{store.root} has no snapshot to publish; compact the catalog first")
    refused = refused_worlds(snapshot.table(store, ref, "worlds", _COLUMNS))
    left = ref.num_worlds - len(refused)
    if dry_run:
        return Release(name=name, version=ref.version, num_worlds=left, refused=refused, card=None)
    if refused and not leave_out:
        first = "; ".join(f"{world[:12]} ({why})" for world, why in list(refused.items())[:5])
        raise LicenseError(
            f"{len(refused)} of {ref.num_worlds} worlds may not be published: {for_terminal(first)}; --dry-run lists "
            f"all, --leave-out publishes the others"
        )
    if not left:
        raise CatalogError(f"snapshot {ref.version} of {store.root} has no world that may be published")
    frozen = _write_parts(store, ref, name, frozenset(refused))
    card = card_of(store, frozen, name=title, publishable=True, description=key)
    document = {
        **asdict(frozen),
        "release": name,
        "snapshot": ref.version,
        "left_out": refused,
        "readme_sha256": hashlib.sha256(card.readme.encode()).hexdigest(),
        "croissant_sha256": hashlib.sha256(card.croissant.encode()).hexdigest(),
    }
    if not store.create(key, json.dumps(document, indent=1).encode()):
        raise CatalogError(f"the release {name!r} of {store.root} was made by somebody else meanwhile")
    store.put_bytes("README.md", card.readme.encode())
    store.put_bytes("croissant.json", card.croissant.encode())
    return Release(name=name, version=ref.version, num_worlds=frozen.num_worlds, refused=refused, card=card)


def refused_worlds(worlds: pa.Table) -> dict[str, str]:
    """Worlds that may not be passed on, each with the reason: by its weights, or by its photograph."""
    reasons = {world: f"weights: {why}" for world, why in restricted_worlds(worlds).items()}
    for row in worlds.select(["world_id", "seed_license", "seed_attribution"]).to_pylist():
        why = _photograph(row["seed_license"], row["seed_attribution"])
        if why:
            before = reasons.get(row["world_id"])
            reasons[row["world_id"]] = f"{before}; photograph: {why}" if before else f"photograph: {why}"
    return reasons


def _photograph(license_name: str | None, attribution: str | None) -> str | None:
    """Why a photograph may not be used for what is passed on; None where it may."""
    if not license_name:
        return "license unknown"
    if license_name.lower() not in PHOTOGRAPHS:
        return license_name
    if CREDIT.match(license_name) and not attribution:
        return f"{license_name} wants a credit, and the column seed_attribution is empty"
    return None


def _write_parts(store: Store, ref: SnapshotRef, name: str, refused: frozenset[str]) -> SnapshotRef:
    """The rows of a snapshot but the refused ones, as parts of the release."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    token = new_upload()
    parts, rows = {}, {}
    for table in ("worlds", "frames"):
        kept = snapshot.table(store, ref, table)
        if refused:
            kept = kept.filter(pc.invert(pc.is_in(kept["world_id"], value_set=pa.array(sorted(refused)))))
        sink = pa.BufferOutputStream()
        pq.write_table(kept, sink, compression="zstd")
        put = store.put_bytes(release_part_key(name, f"{table}-{token}.parquet"), sink.getvalue().to_pybytes())
        parts[table] = (PartFile(key=put.key, rows=kept.num_rows, bytes=put.bytes, sha256=put.sha256),)
        rows[table] = kept
    return SnapshotRef(
        version=ref.version,
        parent=ref.parent,
        created_at=utc_now().isoformat(),
        token=token,
        worlds=parts["worlds"],
        frames=parts["frames"],
        num_worlds=rows["worlds"].num_rows,
        num_accepted=pc.sum(rows["worlds"]["accepted"]).as_py() or 0,
        num_frames=rows["frames"].num_rows,
    )
