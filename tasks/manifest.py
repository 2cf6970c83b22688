"""Turns what a user names (images, folders, globs, URL prefixes, manifests) into a stream of seed rows."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import fsspec

from lyra_core.errors import ManifestError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
COLUMNS = {
    "seed": str,
    "prompt": str,
    "camera_path": str,
    "variants": int,
    "frames": int,
    "hfov_deg": float,
    "license": str,
    "source_url": str,
    "attribution": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One seed as named by the user; None means the recipe's default."""

    seed_uri: str
    ordinal: int
    prompt: str | None = None
    camera_path: str | None = None
    variants: int | None = None
    frames: int | None = None
    hfov_deg: float | None = None
    license: str | None = None
    source_url: str | None = None
    attribution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A manifest row that cannot be used; it becomes a reject and nothing else is lost."""

    seed_uri: str
    ordinal: int
    reason: str


def read_seeds(sources: Iterable[str]) -> Iterator[ManifestRow | BadRow]:
    """Stream the seeds of all sources in order, numbered from 0.

    A source is an image, a folder (its images, by name, not recursive), a glob, a URL prefix, or a manifest
    (.csv, .jsonl, .parquet with a column `seed` and optionally prompt, camera_path, variants, frames, hfov_deg,
    license, source_url, attribution; other columns are ignored). Paths in a manifest are relative to its folder.

    Raises:
        ManifestError: a source that matches nothing, or a manifest that cannot be read at all.
    """
    ordinal = 0
    for source in sources:
        for item in _read_source(source):
            yield _numbered(item, ordinal)
            ordinal += 1


def _numbered(item: ManifestRow | BadRow, ordinal: int) -> ManifestRow | BadRow:
    from dataclasses import replace

    return replace(item, ordinal=ordinal)


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri.rstrip("/"))[1].lower()


def _read_source(source: str) -> Iterator[ManifestRow | BadRow]:
    if _suffix(source) in MANIFEST_SUFFIXES:
        yield from _read_manifest(source)
        return
    filesystem, path = fsspec.core.url_to_fs(source)
    if any(character in path for character in "*?["):
        matches = sorted(p for p in filesystem.glob(path) if _suffix(p) in IMAGE_SUFFIXES)
    elif _suffix(source) in IMAGE_SUFFIXES and not filesystem.isdir(path):
        # A named image that is missing becomes a reject of its own when it is read, so the others still run.
        matches = [path]
    elif filesystem.isdir(path):
        matches = sorted(
            entry["name"]
            for entry in filesystem.ls(path, detail=True)
            if entry["type"] == "file" and _suffix(entry["name"]) in IMAGE_SUFFIXES
        )
    elif filesystem.exists(path):
        matches = [path]
    else:
        raise ManifestError(
            f"seeds: wanted an image, folder, glob, URL prefix or manifest, but {source!r} does not exist; "
            f"check the path"
        )
    if not matches:
        raise ManifestError(
            f"seeds: {source!r} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); name a folder with photographs, "
            f"or a manifest ({', '.join(sorted(MANIFEST_SUFFIXES))})"
        )
    for match in matches:
        yield ManifestRow(seed_uri=_full_uri(filesystem, match), ordinal=-1)


def _full_uri(filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    return path if "file" in filesystem.protocol else str(filesystem.unstrip_protocol(path))


def _read_manifest(uri: str) -> Iterator[ManifestRow | BadRow]:
    filesystem, path = fsspec.core.url_to_fs(uri)
    base = _full_uri(filesystem, path).rsplit("/", 1)[0]  # absolute: workers run in other folders
    try:
        for row in _RAW_READERS[_suffix(uri)](uri):
            yield _parse_row(row, base)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ManifestError(f"manifest {uri}: cannot be read ({error}); wanted CSV, JSON lines or Parquet") from error


def _require_seed_column(uri: str, found: Iterable[str]) -> None:
    columns = list(found)
    if "seed" not in columns:
        raise ManifestError(
            f"manifest {uri}: wanted a column 'seed' (the image's path or URL), found {columns or 'no columns'}; "
            f"optional columns: {', '.join(c for c in COLUMNS if c != 'seed')}"
        )


def _read_csv(uri: str) -> Iterator[Mapping[str, object]]:
    with (
        fsspec.open(uri, "rb") as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text,
    ):
        reader = csv.DictReader(text)
        _require_seed_column(uri, reader.fieldnames or [])
        yield from reader


def _read_jsonl(uri: str) -> Iterator[Mapping[str, object]]:
    with fsspec.open(uri, "rb") as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as text:
        first = True
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield {"seed": "", "_problem": f"line {number} is not JSON ({error})"}
                continue
            if not isinstance(row, dict):
                yield {
                    "seed": "",
                    "_problem": f"line {number} wants an object, found {type(row).__name__}",
                }
                continue
            if first:
                _require_seed_column(uri, row)
                first = False
            yield row


def _read_parquet(uri: str) -> Iterator[Mapping[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with fsspec.open(uri, "rb") as binary:
        try:
            table = pq.ParquetFile(binary)
        except pa.ArrowInvalid as error:
            raise ManifestError(f"manifest {uri}: not a Parquet file ({error})") from error
        names = table.schema_arrow.names
        _require_seed_column(uri, names)
        for batch in table.iter_batches(batch_size=4096, columns=[c for c in COLUMNS if c in names]):
            yield from batch.to_pylist()


_RAW_READERS = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}


def _parse_row(row: Mapping[str, object], base: str) -> ManifestRow | BadRow:
    named = row.get("seed")
    seed = named.strip() if isinstance(named, str) else ""
    problem = row.get("_problem")
    if problem:
        return BadRow(seed_uri=seed, ordinal=-1, reason=f"manifest row: {problem}")
    if not seed:
        return BadRow(
            seed_uri="",
            ordinal=-1,
            reason=f"manifest row: 'seed' wants a path or URL, found {named!r}",
        )
    if ".." in seed.replace("\\", "/").split("/"):
        return BadRow(
            seed_uri=seed,
            ordinal=-1,
            reason=f"manifest row: 'seed' must stay inside the manifest's folder, found {seed!r}; name it without '..'",
        )
    values: dict[str, object] = {}
    for column, kind in COLUMNS.items():
        value = row.get(column)
        if column == "seed" or value is None or value == "":
            continue
        try:
            values[column] = _cast(value, kind)
        except (TypeError, ValueError):
            return BadRow(
                seed_uri=_resolve(seed, base),
                ordinal=-1,
                reason=f"manifest row: '{column}' wants {kind.__name__}, found {value!r}",
            )
    return ManifestRow(seed_uri=_resolve(seed, base), ordinal=-1, **values)  # type: ignore[arg-type]


def _cast(value: object, kind: type) -> object:
    if kind is str:
        if not isinstance(value, str):
            raise TypeError
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError
    number = float(value)
    if kind is int:
        if number != int(number) or number < 1:
            raise ValueError
        return int(number)
    return number


def _resolve(seed: str, base: str) -> str:
    if "://" in seed or seed.startswith("/"):
        return seed
    return f"{base}/{seed}"
