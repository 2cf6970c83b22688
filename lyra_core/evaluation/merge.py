"""Result files of the table as one: parts measured side by side on several devices, or one after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lyra_core.errors import WeightsError
from lyra_core.evaluation.results import today_path, write_result
from lyra_core.evaluation.table import complete, markdown, read_rows

TABLE = "table.md"


def read_result(path: Path) -> dict[str, Any]:
    """A result file, its lines as rows of the table; date and hardware of the process are left out, rows have theirs.

    Raises:
        WeightsError: no numbers of the table.
    """
    rows, digest = read_rows(path)
    result = json.loads(path.read_text(encoding="utf-8"))
    return {k: v for k, v in result.items() if k not in ("date", "hardware")} | {"rows": rows, "weights": digest}


def combined(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Two results of the same weights: what the later one measured or names wins, all else is kept."""
    named = {key: value for key, value in later.items() if value is not None}
    peaks = [result.get("peak_rss_gib") or 0.0 for result in (earlier, later)]
    return {
        **later,
        **earlier,
        **named,
        "peak_rss_gib": max(peaks),
        "rows": complete(later["rows"], earlier["rows"]),
        "details": earlier.get("details", {}) | later.get("details", {}),
    }


def store(result: dict[str, Any], folder: Path, pictures: Path) -> Path:
    """Today's result, added to an earlier one of today of the same weights, as JSON and as Markdown.

    Args:
        result: digest of the `weights`, `rows`, `details` and what else is to be told.
        folder: of result files.
        pictures: folder for the table in Markdown.
    """
    known = today_path("mini", folder)
    if known.is_file():
        try:
            earlier = read_result(known)
        except WeightsError:
            earlier = {"weights": ""}  # of an older form of the table
        if earlier["weights"] == result["weights"]:
            result = combined(earlier, result)
    rows = complete(result["rows"])
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / TABLE).write_text("\n".join(markdown(rows)) + "\n", encoding="utf-8")
    return write_result("mini", {**result, "rows": [row.as_dict() for row in rows]}, folder)


def merge(paths: list[Path], folder: Path, pictures: Path) -> Path:
    """Several result files of the same weights as today's; rows measured in later files win.

    Args:
        paths: of result files, in order.
        folder: of result files, where today's is written.
        pictures: folder for the table in Markdown.

    Raises:
        WeightsError: files that cannot be read, or that measure different weights.
    """
    results = [read_result(path) for path in paths]
    merged = results[0]
    for path, other in zip(paths[1:], results[1:], strict=True):
        if other["weights"] != merged["weights"]:
            raise WeightsError(
                f"{paths[0]} measures weights {merged['weights'][:12]}, {path} measures {other['weights'][:12]}; "
                "merge results of the same weights only"
            )
        merged = combined(merged, other)
    return store(merged, folder, pictures)
