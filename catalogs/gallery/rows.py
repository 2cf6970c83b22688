"""What the gallery's index knows of each world: a choice of columns, and one number to sort by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from lyra_core.records import WorldRecord

# Columns of `worlds` that the page can search, filter and sort, in the order in which it lists them.
COLUMNS = (
    *("world_id", "name", "prompt", "recipe", "model_name", "trajectory_name", "variant", "run_id"),
    *("accepted", "reject_reasons", "psnr_db", "ssim", "coverage_frac", "floater_frac", "isolated_frac", "needle_frac"),
    *("texture_frac", "motion_frac", "motion_px", "flicker_levels", "revisit_db", "opacity_mean"),
    *("num_splats", "num_surface_splats", "sh_degree", "num_frames", "width", "height", "path_length_m"),
    *("total_rotation_deg", "up_source", "floor_confidence", "floor_rmse_m", "free_area_m2", "meters_per_unit"),
    *("metric_scale_source", "seed_license", "output_license", "accepted_licenses", "seed_attribution"),
    *("has_people", "has_faces", "has_text", "wall_s", "gpu_seconds", "gpu_name", "created_at"),
)
SCORE_MEANING = (
    "0 to 100, to sort by: PSNR between 15 and 40 dB, times coverage, times what is left without floaters and needles; "
    "0 without texture or motion, halved where a gate was failed; unknown measures count as good"
)
LEAST_DB, MOST_DB = 15.0, 40.0
MAX_TEXT = 400  # characters of a caption that the index carries; the page of the world has all


def index_columns() -> list[dict[str, str]]:
    """Name, kind (text, number, bool) and meaning of each column of the index; `quality` is first."""
    described = {f.name: f.metadata for f in fields(WorldRecord)}
    kinds = {"string": "text", "list<string>": "text", "timestamp": "text", "bool": "bool"}
    return [{"name": "quality", "kind": "number", "meaning": SCORE_MEANING}] + [
        {
            "name": name,
            "kind": kinds.get(described[name]["type"], "number"),
            "meaning": described[name]["meaning"],
        }
        for name in COLUMNS
        if name in described
    ]


def index_row(row: Mapping[str, object]) -> list[object]:
    """The values of `index_columns` of one row of `worlds`, as JSON has them."""
    names = [column["name"] for column in index_columns()[1:]]
    return [quality_score(row), *(_value(row.get(name)) for name in names)]


def quality_score(row: Mapping[str, object]) -> float | None:
    """One number to sort by, see SCORE_MEANING; None where PSNR was not measured."""
    psnr = _number(row, "psnr_db")
    if psnr is None:
        return None
    score = 100.0 * min(1.0, max(0.0, (psnr - LEAST_DB) / (MOST_DB - LEAST_DB)))
    score *= _number(row, "coverage_frac", 1.0) or 0.0
    for name in ("floater_frac", "isolated_frac", "needle_frac"):
        score *= 1.0 - (_number(row, name, 0.0) or 0.0)
    for name in ("texture_frac", "motion_frac"):
        score *= min(1.0, (_number(row, name, 1.0) or 0.0) / 0.05)
    return round(score if row.get("accepted") else score / 2.0, 2)


def by_quality(rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The best first; equal ones by name and id, so that the same catalog gives the same site."""
    scored = [(quality_score(row), str(row.get("name") or ""), str(row["world_id"]), row) for row in rows]
    scored.sort(key=lambda item: (-(item[0] if item[0] is not None else -1.0), item[1], item[2]))
    return [item[3] for item in scored]


def _number(row: Mapping[str, object], name: str, unknown: float | None = None) -> float | None:
    value = row.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return unknown
    return float(value)


def _value(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    if isinstance(value, list | tuple):
        return "; ".join(str(item) for item in value) or None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
