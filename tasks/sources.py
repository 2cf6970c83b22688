"""What a user names on the command line: a photograph, a folder, a pattern, a URL, a prefix, or a manifest.

What exists wins over patterns, and web addresses are no patterns at all: `IMG[1].jpg` is that file if it is there.
"""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lyra_core.errors import ManifestError, SeedError, SourceError
from lyra_core.public_uri import printable, public_uri
from lyra_core.seed_source import AGAIN, ask, is_chain, is_web, local_path, open_filesystem, what_it_is
from tasks.image_names import is_image_name, sort_files
from tasks.manifest_formats import MANIFEST_SUFFIXES, format_of, part_names, require_readable
from tasks.manifest_lines import Tell
from tasks.seed_paths import as_on_disk

_MAGIC = "*?["


@dataclass(frozen=True, slots=True)
class FoundSeeds:
    """What a source stands for: addresses of photographs, or the files of one manifest."""

    seeds: tuple[str, ...] = ()
    manifest: str | None = None
    parts: tuple[str, ...] = ()


def find(source: str, tell: Tell) -> FoundSeeds:
    """What a source stands for; `tell` takes a one-line notice about what a folder holds besides photographs.

    Raises:
        ManifestError: it stands for nothing. SourceError: its storage cannot be asked.
    """
    if not source.strip():
        raise ManifestError("seeds: wanted a photograph, folder, pattern, URL or manifest, found an empty name")
    path = local_path(source)
    if path is not None:
        return _find_local(os.path.expanduser(path), source, tell)  # noqa: PTH111  Path would drop a trailing slash
    if is_chain(source):
        return FoundSeeds(seeds=(source,))
    if is_web(source):
        return _find_web(source)
    return _find_remote(source, tell)


def _find_local(named: str, source: str, tell: Tell) -> FoundSeeds:
    path = as_on_disk(os.path.abspath(named))  # noqa: PTH100  links stay: a name is what the user sees
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        return _find_missing(named, path, source, error, tell)
    if stat.S_ISDIR(mode):
        if format_of(path):
            files = [str(file) for file in sorted(Path(path).rglob("*")) if file.is_file()]
            return _parts(path, files, source)
        return _folder(path, source, tell)
    if not stat.S_ISREG(mode):
        raise ManifestError(f"seeds: {_shown(source)} is {what_it_is(mode)}; name a photograph, a folder or a manifest")
    return _file(path, source)


def _find_missing(named: str, path: str, source: str, error: Exception, tell: Tell) -> FoundSeeds:
    if any(character in named for character in _MAGIC) and (matches := _matches(named)):
        return _photographs(matches, source, tell)
    if isinstance(error, PermissionError):
        raise ManifestError(f"seeds: {_shown(source)} may not be read by this user; give read access") from error
    # A named image that is missing becomes a reject of its own when it is read, so the others still run.
    if is_image_name(path):
        return FoundSeeds(seeds=(path,))
    if os.path.lexists(path):
        raise ManifestError(f"seeds: {_shown(source)} is a link to something that does not exist") from error
    raise _nothing(source) from error


def _matches(pattern: str) -> list[str]:
    """Files that match, where the folders that exist under their literal name are no pattern."""
    folder, rest = ("/", pattern.lstrip("/")) if pattern.startswith("/") else (".", pattern)
    parts = rest.split("/")
    while len(parts) > 1 and Path(folder, parts[0]).is_dir():
        folder = os.path.join(folder, parts.pop(0))  # noqa: PTH118
    names = glob.glob("/".join(parts), root_dir=folder, recursive=True)  # noqa: PTH207  Path.glob knows no root_dir
    paths = (os.path.abspath(os.path.join(folder, name)) for name in names)  # noqa: PTH100, PTH118
    return [path for path in paths if Path(path).is_file()]


def _folder(path: str, source: str, tell: Tell) -> FoundSeeds:
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                # Links to nothing and pipes stay among the files: they become rejects, which say so.
                (folders if _is_folder(entry) else files).append(entry.path)
    except OSError as error:
        raise ManifestError(f"seeds: the folder {_shown(source)} cannot be read ({error.strerror})") from error
    return _photographs(files, source, tell, folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _photographs(paths: list[str], source: str, tell: Tell, folders: Iterable[str] = ()) -> FoundSeeds:
    listing = sort_files(paths)
    notice = printable(listing.notice)
    if not listing.images:
        inside = sorted(name for name in map(posixpath.basename, folders) if not name.startswith("."))
        hint = f"; it holds folders ({', '.join(map(printable, inside[:3]))}): name one of these" if inside else ""
        skipped = f"; {notice}" if notice else ""
        raise ManifestError(
            f"seeds: {_shown(source)} holds no image{skipped}{hint}; name a folder with photographs, or a manifest "
            f"({', '.join(MANIFEST_SUFFIXES)})"
        )
    if notice:
        tell(f"{printable(public_uri(source))}: {notice}")
    return FoundSeeds(seeds=tuple(listing.images))


def _file(path: str, source: str) -> FoundSeeds:
    if format_of(path):
        return FoundSeeds(manifest=path, parts=(path,))
    require_readable(path, printable(source))
    return FoundSeeds(seeds=(path,))


def _parts(folder: str, files: list[str], source: str) -> FoundSeeds:
    parts = part_names(file for file in files if "/." not in file[len(folder) :] and "/_" not in file[len(folder) :])
    if not parts:
        raise ManifestError(f"seeds: the folder {_shown(source)} has a manifest's name but holds no part of one")
    return FoundSeeds(manifest=folder, parts=tuple(parts))


def _find_web(source: str) -> FoundSeeds:
    try:
        path = urlsplit(source).path
    except ValueError as error:
        raise ManifestError(f"seeds: {_shown(source)} is no URL ({error}); correct it") from error
    if format_of(path):
        return FoundSeeds(manifest=source, parts=(source,))
    if not path.endswith("/") or urlsplit(source).query:
        require_readable(path, public_uri(source))
        return FoundSeeds(seeds=(source,))
    filesystem, address = open_filesystem(source)
    names = _asked(source, lambda: [entry["name"] for entry in filesystem.ls(address) if entry["type"] == "file"])
    images = [name for name in sorted(names) if is_image_name(urlsplit(name).path)]
    if not images:
        raise ManifestError(f"seeds: the page {_shown(source)} links no image; name images or a manifest")
    return FoundSeeds(seeds=tuple(images))


def _find_remote(source: str, tell: Tell) -> FoundSeeds:
    def look() -> tuple[Any, str, dict[str, Any] | None]:
        filesystem, path = open_filesystem(source)
        try:
            return filesystem, path, filesystem.info(path)
        except FileNotFoundError:
            if is_image_name(path) or any(c in path for c in _MAGIC) or filesystem.exists(path.partition("/")[0]):
                return filesystem, path, None
            raise

    filesystem, path, info = _asked(source, look)
    if info is not None and info["type"] != "directory":
        found = _file(path, source)
        return FoundSeeds(seeds=(source,)) if found.seeds else FoundSeeds(manifest=source, parts=(source,))

    def whole(name: str) -> str:
        return str(filesystem.unstrip_protocol(name))

    if info is not None:
        if format_of(path):
            files = _asked(source, lambda: [whole(name) for name in filesystem.find(path)])
            return _parts(whole(path), files, source)
        entries = _asked(source, lambda: filesystem.ls(path, detail=True))
        files = [e["name"] for e in entries if e["type"] == "file" and e["name"].strip("/") != path.strip("/")]
        folders = [e["name"].rstrip("/") for e in entries if e["type"] == "directory"]
        found = _photographs([name for name in files if not name.endswith("/")], source, tell, folders)
        return FoundSeeds(seeds=tuple(whole(name) for name in found.seeds))
    if any(character in path for character in _MAGIC):
        matches = _asked(source, lambda: [name for name in filesystem.glob(path) if not name.endswith("/")])
        if matches:
            return FoundSeeds(seeds=tuple(whole(name) for name in _photographs(matches, source, tell).seeds))
    if is_image_name(path):
        return FoundSeeds(seeds=(source,))
    raise _nothing(source)


def _asked(source: str, work: Any) -> Any:
    """Ask the storage of a named source; what is wrong is told in one sentence."""
    try:
        return ask(source, work)
    except SeedError as error:
        raise ManifestError(_of_source(error)) from error
    except SourceError as error:
        raise SourceError(_of_source(error)) from error


def _of_source(error: Exception) -> str:
    text = str(error).removeprefix("seed ").removesuffix(AGAIN)
    return f"seeds: {text.replace('wanted an image file, found', 'found', 1)}"


def _nothing(source: str) -> ManifestError:
    return ManifestError(
        f"seeds: wanted an image, folder, glob, URL prefix or manifest, but {_shown(source)} does not exist; "
        f"check the path"
    )


def _shown(source: str) -> str:
    return repr(public_uri(source))
