"""The columns of a manifest, and what the names in a header were probably meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from lyra_core.errors import ManifestError
from lyra_core.public_uri import printable

COLUMNS = (
    "seed", "prompt", "camera_path", "variants", "frames", "hfov_deg", "camera_height_m", "center_distance_m",
    "license", "source_url", "attribution",
)  # fmt: skip
_SPELLINGS = {"licence": "license"}
# Names other tools give these columns; taken for a mistake only where the column itself is missing.
_OTHER_NAMES = {
    **dict.fromkeys(("image", "images", "image_path", "image_url", "img", "photo", "picture"), "seed"),
    **dict.fromkeys(("file", "filename", "file_name", "filepath", "file_path", "path", "uri", "url"), "seed"),
    **dict.fromkeys(("seed_uri", "seed_url", "seed_path"), "seed"),
    **dict.fromkeys(("caption", "captions", "text", "description"), "prompt"),
    **dict.fromkeys(("camera", "trajectory", "preset"), "camera_path"),
    **dict.fromkeys(("num_frames", "n_frames"), "frames"),
    **dict.fromkeys(("num_variants", "n_variants"), "variants"),
    **dict.fromkeys(("hfov", "fov", "fov_deg", "hfov_degrees"), "hfov_deg"),
}
_CLOSE = 0.84
_MANY = 12


def canonical(name: object) -> str:
    """A column's name without the accidents of spreadsheets: case, spaces, quotes, British spelling."""
    plain = re.sub(r"[\s\-]+", "_", str(name).strip(" \t\"'\ufeff").casefold())
    return _SPELLINGS.get(plain, plain)


def meant(name: str, found: Iterable[str]) -> str | None:
    """The known column a canonical name was probably meant to be, unless the manifest has that column as well."""
    if name in COLUMNS:
        return None
    near = _OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, COLUMNS, 1, _CLOSE)), None)
    return near if near is not None and near not in found else None


def known_columns(header: Sequence[object], manifest: str) -> list[str | None]:
    """For each cell of a header the column it names, or None where that column is of no concern here.

    Raises:
        ManifestError: no column `seed`, a known column twice, or a name that was probably meant to be a known column.
    """
    names = [canonical(cell) for cell in header]
    require_seed(header, names, manifest)
    twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
    if twice:
        raise ManifestError(
            f"manifest {manifest}: the column {twice[0]!r} stands there more than once; keep one of them"
        )
    slips = [(cell, near) for cell, name in zip(header, names, strict=True) if (near := meant(name, names))]
    if slips:
        told = "; ".join(f"column {_shown(cell)!r} is not known, did you mean {near!r}" for cell, near in slips)
        raise ManifestError(f"manifest {manifest}: {told}? Rename it, or drop it")
    return [name if name in COLUMNS else None for name in names]


def require_seed(header: Sequence[object], names: Sequence[str], manifest: str) -> None:
    """Refuse a manifest without the one column it needs.

    Raises:
        ManifestError: with the columns it has, and the one that was probably meant.
    """
    if "seed" in names:
        return
    near = [_shown(cell) for cell, name in zip(header, names, strict=True) if meant(name, names) == "seed"]
    hint = f"; did you mean {near[0]!r}? Rename it to 'seed'" if near else ""
    shown = [_shown(cell) for cell in header[:_MANY]] + (["..."] if len(header) > _MANY else [])
    raise ManifestError(
        f"manifest {manifest}: wanted a column 'seed' (the image's path or URL), found {shown or 'no columns'}{hint}; "
        f"optional columns: {', '.join(c for c in COLUMNS if c != 'seed')}; a bare list of paths is a .txt file"
    )


def _shown(cell: object) -> str:
    text = printable(str(cell)).strip("\ufeff")
    return text if len(text) <= 40 else f"{text[:40]}..."
