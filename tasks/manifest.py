"""Turns what a user names (images, folders, globs, URL prefixes, manifests) into a stream of seed rows."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from lyra_core.errors import LyraError, ManifestError, SeedError, SourceError
from lyra_core.public_uri import printable, public_uri
from lyra_core.seed_source import ask, explained, is_web, local_path, open_filesystem, require_file
from tasks.manifest_formats import ManifestRecord, read_manifest
from tasks.manifest_lines import Tell
from tasks.manifest_rows import BadRow, ManifestRow, RowError, parse_cells, shortened
from tasks.seed_paths import ManifestFolder
from tasks.sources import find

__all__ = ["BadRow", "ManifestRow", "read_seeds"]


def read_seeds(sources: Iterable[str], tell: Tell | None = None) -> Iterator[ManifestRow | BadRow]:
    """Stream the seeds of all sources in order, numbered from 0.

    A source is an image, a folder (its images, by name, not recursive), a glob, a URL or URL prefix, or a manifest;
    docs/manifest.md says what a manifest may be. A row that cannot be used is a BadRow and costs itself only.

    Args:
        sources: as the user named them.
        tell: takes one-line notices, such as what a folder holds besides photographs.

    Raises:
        ManifestError: the only source matches nothing, or is a manifest that cannot be read at all. One of several
            such sources is a BadRow.
        SourceError: the storage of the only source does not answer.
    """
    named = list(sources)
    ordinal = 0
    for source in named:
        rows = _read_source(source, tell or _keep_quiet)
        for item in rows if len(named) == 1 else _or_reject(rows, source):
            yield replace(item, ordinal=ordinal)
            ordinal += 1


def _or_reject(rows: Iterator[ManifestRow | BadRow], source: str) -> Iterator[ManifestRow | BadRow]:
    """The rows of one source among several: what ends it costs the others nothing."""
    try:
        yield from rows
    except (ManifestError, SourceError) as error:
        is_unreached = isinstance(error, SourceError)
        yield BadRow(seed_uri=public_uri(source), ordinal=-1, reason=str(error), is_unreached=is_unreached)


def _keep_quiet(notice: str) -> None:
    """Nobody wants notices."""


def _read_source(source: str, tell: Tell) -> Iterator[ManifestRow | BadRow]:
    seed_source = find(source, tell)
    for uri in seed_source.seeds:
        yield ManifestRow(seed_uri=uri, ordinal=-1)
    if seed_source.manifest is None:
        return
    folder = ManifestFolder(seed_source.manifest)
    is_empty = True
    for part in seed_source.parts:
        # A manifest of one file goes by the name its user gave it.
        shown = public_uri(source if len(seed_source.parts) == 1 and seed_source.manifest == part else part)
        for row in _read_part(part, shown, folder, tell):
            is_empty = False
            yield row
    if is_empty:
        tell(f"manifest {public_uri(source)}: it holds no row")


def _read_part(part: str, shown: str, folder: ManifestFolder, tell: Tell) -> Iterator[ManifestRow | BadRow]:
    path = local_path(part)
    try:
        with ExitStack() as stack:
            if path is not None:
                require_file(path)
                binary: IO[bytes] = stack.enter_context(Path(path).open("rb"))
            else:
                binary = stack.enter_context(_opened(part))
            name = posixpath.basename(public_uri(part).partition("?")[0] if is_web(part) else part)
            for record in read_manifest(binary, name, shown, tell):
                row = _row(record, shown, part, folder)
                if row is not None:
                    yield row
    except LyraError:
        raise
    except OSError as error:
        if path is None:
            raise explained(error, part) from error
        raise ManifestError(f"manifest {shown}: cannot be read ({printable(str(error))}); check the file") from error
    except Exception as error:
        if path is not None:
            raise
        raise explained(error, part) from error  # clients have exceptions of their own for a broken connection


def _opened(uri: str) -> IO[bytes]:
    def work() -> IO[bytes]:
        filesystem, path = open_filesystem(uri)
        opened: IO[bytes] = filesystem.open(path, "rb")
        return opened

    try:
        return ask(uri, work)
    except SeedError as error:
        text = str(error).removeprefix("seed ").replace("an image file", "a manifest", 1)
        raise ManifestError(f"manifest {text}") from error


def _row(record: ManifestRecord, shown: str, uri: str, folder: ManifestFolder) -> ManifestRow | BadRow | None:
    """The row a record makes, a BadRow that says what is wrong with it, or None for a blank one."""
    place = f"manifest {shown}, {record.place}"
    named = record.cells.get("seed")
    try:
        if record.problem:
            raise RowError(record.problem)
        values = parse_cells(record.cells)
        if values is None:
            return None
        if "seed" not in values:
            raise RowError(f"'seed' wants a path or URL, found {shortened(named)}")
        values["seed_uri"] = folder.seed(str(values.pop("seed")))
        if "camera_path" in values:
            values["camera_path"] = folder.camera_path(str(values["camera_path"]))
    except RowError as error:
        # A row without a seed is known by its place, so that the next run recognises its reject.
        known_as = _address(named, folder) or f"{public_uri(uri)}#{record.place.replace(' ', '=')}"
        return BadRow(seed_uri=known_as, ordinal=-1, reason=f"{place}: {error}")
    return ManifestRow(ordinal=-1, place=place, **values)  # type: ignore[arg-type]


def _address(named: object, folder: ManifestFolder) -> str:
    """Where the seed of a bad row would lie, or what stands there instead, if that much can be read."""
    try:
        seed = str((parse_cells({"seed": named}) or {"seed": ""})["seed"])
    except RowError:
        return ""
    try:
        return folder.seed(seed) if seed else ""
    except RowError:
        return seed[:1000]
