"""The flow that folds commits into a new snapshot of the catalog; batches do it at their end, schedules in between."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from catalogs.compaction import compact as compact_catalog
from catalogs.query import status
from lyra_core.escape import for_markdown
from lyra_core.formats.store import open_store


@flow(name="compact-catalog", persist_result=False)
def compact(out: str) -> int | None:
    """Write a new snapshot if anything was committed since the last one.

    Args:
        out: where worlds are stored.

    Returns:
        The newest snapshot's version, or None while nothing was ever committed.

    Raises:
        StoreError, CatalogError: storage cannot be read or written.
    """
    store = open_store(out)
    snapshot = compact_catalog(store)
    counts = status(store)
    create_markdown_artifact(
        f"# Catalog of {for_markdown(out)}\n\n"
        "| worlds | accepted | open rejects | splats | snapshot |\n|---|---|---|---|---|\n"
        f"| {counts.worlds:,} | {counts.accepted:,} | {counts.rejects_open:,} | {counts.splats:,} "
        f"| {counts.snapshot_version} |",
        key="catalog-status",
        description=for_markdown(f"catalog of {out}"),
    )
    return snapshot.version if snapshot else None
