"""Which file names are photographs, which are photographs no decoder here reads, and which nobody means."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

# Every usual suffix of the formats that lyra_core.formats.image decodes (a test compares them with the decoder's).
IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif",
        ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
    }
)  # fmt: skip
# Photographs all the same, but of formats without a decoder here.
UNREAD_SUFFIXES = frozenset(
    {
        ".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".psd",
    }
)  # fmt: skip
_JUNK = frozenset({"thumbs.db", "desktop.ini"})
_NAMED = 3


def suffix_of(name: str) -> str:
    """The last suffix of a path or URL without a query, in lower case."""
    return posixpath.splitext(name.rstrip("/"))[1].lower()


def is_image_name(name: str) -> bool:
    """Whether a name has the suffix of a format that is decoded here."""
    return suffix_of(name) in IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Sorted:
    """The files of a folder: those that are photographs, and a sentence about the others, if any deserve one."""

    images: list[str]
    notice: str = ""


def sort_files(paths: Iterable[str]) -> Sorted:
    """Pick the photographs among files; hidden files and what systems leave behind are passed over in silence."""
    images: list[str] = []
    unread: list[str] = []
    others: list[str] = []
    for path in sorted(paths):
        name = posixpath.basename(path)
        if name.startswith(".") or name.lower() in _JUNK:
            continue
        kind = suffix_of(name)
        (images if kind in IMAGE_SUFFIXES else unread if kind in UNREAD_SUFFIXES else others).append(path)
    told = []
    if unread:
        told.append(
            f"skipped {_counted(unread, 'photograph')} of formats that are not decoded here ({_names(unread)}): "
            "convert them to JPEG"
        )
    if others:
        what = "that is no image" if len(others) == 1 else "that are no images"
        told.append(f"skipped {_counted(others, 'file')} {what}: {_names(others)}")
    return Sorted(images, "; ".join(told))


def _counted(paths: list[str], noun: str) -> str:
    return f"{len(paths):,} {noun}{'' if len(paths) == 1 else 's'}"


def _names(paths: list[str]) -> str:
    shown = [posixpath.basename(path)[:60] for path in paths[:_NAMED]]
    return ", ".join(shown) + (", ..." if len(paths) > _NAMED else "")
