"""docs/manifest.md names every column, format and bound that the code has."""

from __future__ import annotations

from pathlib import Path

from lyra_core.seed_source import MAX_SEED_BYTES, TRIES
from tasks.image_names import IMAGE_SUFFIXES
from tasks.manifest_columns import COLUMNS
from tasks.manifest_formats import MANIFEST_SUFFIXES, MAX_JSON_BYTES
from tasks.manifest_lines import MAX_LINE, MAX_RECORD_LINES
from tasks.manifest_rows import HFOV_DEG, MAX_CELL, MAX_FRAMES, MAX_VARIANTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")


def test_columns_and_suffixes():
    assert [name for name in COLUMNS if f"`{name}`" not in PAGE] == []
    assert [suffix for suffix in MANIFEST_SUFFIXES if f"`{suffix}`" not in PAGE] == []
    listed = PAGE.partition("files that end in")[2].partition("`.\n")[0].partition(". HEIC")[0]
    assert set(listed.replace("`", " ").split()) >= IMAGE_SUFFIXES


def test_bounds():
    bounds = [
        f"1 to {MAX_VARIANTS:,}",
        f"at most {MAX_FRAMES:,}",
        f"more than {HFOV_DEG[0]:g} and less than {HFOV_DEG[1]:g} degrees",
        f"at most {MAX_LINE:,} characters, a cell {MAX_CELL:,}",
        f"{MAX_RECORD_LINES} lines",
        f"up to {MAX_JSON_BYTES >> 20} MiB",
        f"at most {MAX_SEED_BYTES >> 30} GiB",
    ]
    text = " ".join(PAGE.split())
    assert [bound for bound in bounds if bound not in text] == []
    assert TRIES == 4  # "tried four times"
    assert "tried four times" in text
