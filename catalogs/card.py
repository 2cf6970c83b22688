"""The data set's card: README.md with Hugging Face front matter and croissant.json, both from one snapshot."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from catalogs.croissant import croissant_json
from lyra_core import snapshot
from lyra_core.errors import CatalogError, LicenseError
from lyra_core.escape import for_markdown
from lyra_core.formats.store import Store
from lyra_core.layout import snapshot_key
from lyra_core.records import WorldRecord
from lyra_core.snapshot import SnapshotRef

if TYPE_CHECKING:
    import pyarrow as pa

# SPDX ids of licenses that let the outputs of weights be passed on, in lower case.
PERMISSIVE = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "isc",
        "cc0-1.0",
        "cc-by-4.0",
        "unlicense",
        "openmdw-1.1",
    ]
)
_COLUMNS = (
    "world_id", "accepted", "recipe", "model_name", "seed_license", "output_license", "weights_licenses",
    "weights_digests", "accepted_licenses", "num_splats", "num_frames", "artifacts",
)  # fmt: skip
# A word that YAML reads as it stands; any other license is quoted.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*")
_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The two files.

    Attributes:
        readme: README.md.
        croissant: croissant.json.
        restricted: how many worlds were made with weights that do not allow passing on.
    """

    readme: str
    croissant: str
    restricted: int


def write_card(store: Store, *, name: str, version: int | None = None, publishable: bool = False) -> Card:
    """Put README.md and croissant.json of a snapshot at the root of the store.

    Raises:
        CatalogError: there is no such snapshot.
        LicenseError: `publishable`, and some worlds were made with restricted weights.
    """
    card = dataset_card(store, name=name, version=version, publishable=publishable)
    store.put_bytes("README.md", card.readme.encode())
    store.put_bytes("croissant.json", card.croissant.encode())
    return card


def dataset_card(store: Store, *, name: str, version: int | None = None, publishable: bool = False) -> Card:
    """The card of a snapshot, the latest if `version` is None.

    Raises:
        CatalogError: there is no such snapshot.
        LicenseError: `publishable`, and some worlds were made with restricted weights.
    """
    ref = snapshot.latest(store) if version is None else snapshot.read(store, version)
    if ref is None:
        raise CatalogError(f"{store.root} has no snapshot to describe; compact the catalog first")
    return card_of(store, ref, name=name, publishable=publishable, description=snapshot_key(ref.version))


def card_of(store: Store, ref: SnapshotRef, *, name: str, publishable: bool, description: str) -> Card:
    """The card of a version that was read or is being written.

    Args:
        store: where its parts lie.
        ref: the version.
        name: title of the data set.
        publishable: whether to refuse worlds made with restricted weights.
        description: key of the file that lists the parts.

    Raises:
        LicenseError: `publishable`, and some worlds were made with restricted weights.
    """
    worlds = snapshot.table(store, ref, "worlds", _COLUMNS)
    restricted = restricted_worlds(worlds)
    if publishable and restricted:
        first = ", ".join(f"{world} ({why})" for world, why in list(restricted.items())[:5])
        raise LicenseError(
            f"{len(restricted)} of {ref.num_worlds} worlds cannot be published, because of the licenses of the "
            f"weights they were made with: {first}; leave them out, or make them again with other weights"
        )
    license_name = _common_license(worlds)
    return Card(
        readme=_readme(name, ref, worlds, restricted, description),
        croissant=croissant_json(name, ref, license_name, _summary(ref, worlds)),
        restricted=len(restricted),
    )


def restricted_worlds(worlds: pa.Table) -> dict[str, str]:
    """Worlds made with weights that are not known to let their outputs be passed on, each with the reason."""
    reasons = {}
    for row in worlds.select(["world_id", "accepted_licenses", "weights_licenses", "weights_digests"]).to_pylist():
        licenses = row["weights_licenses"] or []
        unfit = sorted({x for x in licenses if x.lower() not in PERMISSIVE} | set(row["accepted_licenses"] or []))
        if len(licenses) < len(row["weights_digests"] or []):
            unfit.append("weights of unknown license")
        if unfit:
            reasons[row["world_id"]] = ", ".join(unfit)
    return reasons


def _common_license(worlds: pa.Table) -> str:
    licenses = set(worlds["output_license"].to_pylist())
    if licenses == {None} or not licenses:
        return "unknown"
    return str(licenses.pop()) if len(licenses) == 1 else "other"


def _summary(ref: SnapshotRef, worlds: pa.Table) -> str:
    splats = sum(n or 0 for n in worlds["num_splats"].to_pylist())
    size = sum(a["bytes"] for row in worlds["artifacts"].to_pylist() for a in row or [])
    return (
        f"{ref.num_worlds:,} explorable 3D worlds ({ref.num_accepted:,} passed every quality gate), each from one "
        f"photograph: a camera-controlled video, its cameras ({ref.num_frames:,} in all) and 3D Gaussians ({splats:,} "
        f"in all; {size / 1e6:,.1f} MB of files."
    )


def _readme(name: str, ref: SnapshotRef, worlds: pa.Table, restricted: dict[str, str], description: str) -> str:
    license_name = _common_license(worlds)
    size = next((label for limit, label in _SIZES if ref.num_worlds < limit), "n>1M")
    front = [
        "---",
        f"pretty_name: {json.dumps(name)}",
        f"license: {license_name.lower() if _PLAIN.fullmatch(license_name) else json.dumps(license_name)}",
        "task_categories: [image-to-3d, image-to-video]",
        "tags: [3d, gaussian-splatting, world-generation, camera-control, synthetic]",
        f"size_categories: [{size}]",
        "configs:",
    ]
    for table, default in (("worlds", "true"), ("frames", "false")):
        keys = [part.key for part in getattr(ref, table)]
        front += [f"- config_name: {table}", f"  default: {default}", "  data_files:"]
        front += [f"  - {json.dumps(key)}" for key in keys]
    sections = [
        [*front, "---"],
        [f"# {for_markdown(name)}", _summary(ref, worlds)],
        [f"Catalog version {ref.version} of {ref.created_at}, schema version {ref.schema_version}."],
        _licenses(worlds, restricted),
        _tally("Recipes", worlds["recipe"].to_pylist()),
        _tally("Models", worlds["model_name"].to_pylist()),
        ["## Reading", _reading(description)],
        _columns(),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _licenses(worlds: pa.Table, restricted: dict[str, str]) -> list[str]:
    weights = [x for row in worlds["weights_licenses"].to_pylist() for x in sorted(set(row or []))]
    lines = [*_tally("Licenses of the worlds", worlds["output_license"].to_pylist()), ""]
    lines += [*_tally("Licenses of the seeds", worlds["seed_license"].to_pylist()), ""]
    lines += _tally("Licenses of the weights", weights)
    if restricted:
        lines += [
            "",
            f"**Not for publication: {len(restricted)} worlds were made with weights that do not allow it:**",
            *[f"- {count:,} x {for_markdown(why)}" for why, count in Counter(restricted.values()).most_common()],
        ]
    unknown = worlds["seed_license"].null_count
    if unknown:
        lines += ["", f"**The seed's license is unknown for {unknown:,} worlds.**"]
    return lines


def _tally(title: str, values: Sequence[str | None]) -> list[str]:
    counts = Counter("unknown" if value is None else value for value in values)
    rows = [f"| {for_markdown(value)} | {count:,} |" for value, count in counts.most_common()]
    return [f"## {title}", "", "| | worlds |", "|---|---:|", *(rows or ["| none | |"])]


def _reading(description: str) -> str:
    return (
        "From the folder of this file (paths in the description are relative to it):\n\n"
        "```python\n"
        "import json\n"
        f'parts = [part["key"] for part in json.load(open("{description}"))["worlds"]]  # or "frames"\n'
        "duckdb.read_parquet(parts)         # import duckdb\n"
        "pyarrow.dataset.dataset(parts)     # import pyarrow.dataset\n"
        "polars.read_parquet(parts)         # import polars\n"
        "pandas.concat(map(pandas.read_parquet, parts))  # import pandas\n"
        "```"
    )


def _columns() -> list[str]:
    rows = [f"| `{f.name}` | `{f.metadata['type']}` | {f.metadata['meaning']} |" for f in fields(WorldRecord)]
    return ["## Columns of `worlds`", "", "| column | type | meaning |", "|---|---|---|", *rows]
