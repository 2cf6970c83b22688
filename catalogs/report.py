"""One self-contained HTML page about a catalog: how good its worlds are, what they cost, what failed and why."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from catalogs.gallery.rows import SCORE_MEANING, by_quality, quality_score
from catalogs.gallery.write import ASSETS
from catalogs.query import connect
from lyra_core.errors import StoreError
from lyra_core.escape import for_terminal
from lyra_core.extras import require
from lyra_core.formats.store import Store

if TYPE_CHECKING:
    from PIL import Image

Row = Mapping[str, object]
# Column, label and unit of each distribution.
DISTRIBUTIONS = (
    ("psnr_db", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("coverage_frac", "Coverage", ""),
    ("texture_frac", "Texture", ""),
    ("motion_frac", "Motion", ""),
    ("flicker_levels", "Flicker", "levels"),
    ("revisit_db", "Revisit", "dB"),
    ("floater_frac", "Floaters", ""),
    ("isolated_frac", "Isolated", ""),
    ("needle_frac", "Needles", ""),
    ("num_splats", "Gaussians", ""),
    ("wall_s", "Time of a world", "s"),
)
BINS = 24
SHEET = 12  # worlds on each contact sheet
THUMBNAIL = (224, 126)
_NUMBER = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def report_page(store: Store, *, title: str) -> str:
    """The page, as HTML without references to anything outside.

    Raises:
        CatalogError: the catalog cannot be read.
        MissingExtraError: DuckDB is not installed.
    """
    require("duckdb", "a report of the catalog")
    connection = connect(store)
    try:
        worlds = connection.sql("SELECT * FROM worlds").to_arrow_table().to_pylist()
        rejects = connection.sql("SELECT stage, reason, error_type FROM rejects").to_arrow_table().to_pylist()
    finally:
        connection.close()
    ordered = by_quality(worlds)
    sections = [
        _headline(worlds, rejects),
        _distributions(worlds),
        _sheet(store, "Best worlds", ordered[:SHEET]),
        _sheet(store, "Worst worlds", ordered[::-1][:SHEET]) if len(ordered) > SHEET else "",
        f'<p class="small soft">The number below a picture is the quality: {_text(SCORE_MEANING)}.</p>',
        _failures(worlds, rejects),
        _cost(worlds),
        _versions(worlds),
    ]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    own = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    sheet = (ASSETS / "site.css").read_text(encoding="utf-8")
    dark = sheet.partition(':root[data-theme="dark"] {')[2].partition("}")[0].replace("color-scheme: dark;", "")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<title>{_text(title)}</title>
<link rel="icon" href="data:,">
<style>{sheet}{own.replace("DARK", dark)}</style>
</head>
<body><main>
<h1>{_text(title)}</h1>
<p class="soft small">{_text(store.root)}, {made}</p>
{"".join(sections)}
</main></body>
</html>
"""


def _headline(worlds: Sequence[Row], rejects: Sequence[Row]) -> str:
    accepted = sum(bool(row["accepted"]) for row in worlds)
    seconds = sum(_numbers(worlds, "wall_s"))
    files = sum(int(a["bytes"]) for row in worlds for a in _items(row["artifacts"]))
    figures = {
        "worlds": f"{len(worlds):,}",
        "accepted": f"{accepted:,}" + (f" ({accepted / len(worlds):.0%})" if worlds else ""),
        "rejects": f"{len(rejects):,}",
        "Gaussians": f"{sum(_numbers(worlds, 'num_splats')):,.0f}",
        "files": f"{files / 1e9:,.1f} GB" if files >= 1e9 else f"{files / 1e6:,.1f} MB",
        "time": f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min",
        "a world": f"{seconds / len(worlds):,.1f} s" if worlds else "-",
        "an accepted world": f"{seconds / accepted:,.1f} s" if accepted else "-",
    }
    return (
        '<dl class="big">' + "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in figures.items())
    ) + "</dl>"


def _distributions(worlds: Sequence[Row]) -> str:
    charts = []
    for column, label, unit in DISTRIBUTIONS:
        found = [(_number(row[column]), bool(row["accepted"])) for row in worlds]
        known = [(value, accepted) for value, accepted in found if value is not None]
        if known:
            charts.append(_histogram(known, label, unit, len(found) - len(known), column))
    if not charts:
        return ""
    return (
        '<h2>Distributions</h2><p class="small soft">Worlds that were not accepted are on top, in red.</p>'
        f'<div class="charts">{"".join(charts)}</div>'
    )


def _histogram(known: Sequence[tuple[float, bool]], label: str, unit: str, unknown: int, column: str) -> str:
    values = [value for value, _ in known]
    least, most = min(values), max(values)
    width = (most - least) / BINS or 1.0
    counts = {accepted: [0] * BINS for accepted in (True, False)}
    for value, accepted in known:
        counts[accepted][min(BINS - 1, int((value - least) / width))] += 1
    top = max(a + b for a, b in zip(counts[True], counts[False], strict=True))
    bars = ""
    for place, (good, bad) in enumerate(zip(counts[True], counts[False], strict=True)):
        high, low = 70 * good / top, 70 * bad / top
        if good:
            bars += f'<rect class="ok" x="{place * 10 + 0.5}" y="{72 - high:.2f}" width="9" height="{high:.2f}"/>'
        if bad:
            bars += f'<rect class="no" x="{place * 10 + 0.5}" y="{72 - high - low:.2f}" width="9" height="{low:.2f}"/>'
    source = f'<span class="mono">{column}</span>' + (f" · {unknown:,} unknown" if unknown else "")
    return (
        f'<section class="panel"><strong>{label}</strong> <span class="small soft">{source}</span>'
        f'<svg viewBox="0 0 240 74" preserveAspectRatio="none" role="img" aria-label="histogram of {column}">{bars}'
        f'</svg><div class="ends small soft"><span>{_short(least)}</span>'
        f"<span>median {_short(median(values))} {unit}</span><span>{_short(most)}</span></div></section>"
    )


def _sheet(store: Store, title: str, rows: Sequence[Row]) -> str:
    figures = []
    for row in rows:
        picture = _thumbnail(store, row)
        name = _text(row["name"] or str(row["world_id"])[:12])
        score = quality_score(row)
        reasons = "; ".join(str(reason) for reason in _items(row["reject_reasons"]))
        figures.append(
            f'<figure title="{_text(reasons or row["world_id"])}">'
            + (f'<img src="{picture}" alt="">' if picture else '<div class="none">no picture</div>')
            + f"<figcaption>{'-' if score is None else f'{score:.0f}'} · {name}"
            + ("" if row["accepted"] else ' · <span class="bad">not accepted</span>')
            + "</figcaption></figure>"
        )
    if not figures:
        return ""
    return f'<h2>{title}</h2><div class="sheet">{"".join(figures)}</div>'


def _thumbnail(store: Store, row: Row) -> str | None:
    """The preview as a small JPEG in a data: address; None where it has none or cannot be read."""
    from PIL import Image

    if not row["thumb_uri"]:
        return None
    try:
        picture: Image.Image = Image.open(io.BytesIO(store.read_bytes(str(row["thumb_uri"])))).convert("RGB")
    except (StoreError, OSError):
        return None
    picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    picture.save(sink, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"


def _failures(worlds: Sequence[Row], rejects: Sequence[Row]) -> str:
    """Reasons with their numbers taken out, so that equal ones are counted together."""
    gates = Counter(
        _NUMBER.sub("#", str(reason).partition(" (")[0]) for row in worlds for reason in _items(row["reject_reasons"])
    )
    stages = Counter(
        (str(row["stage"]), str(row["error_type"] or ""), _NUMBER.sub("#", str(row["reason"]))[:200]) for row in rejects
    )
    found = '<h2>What failed</h2><section class="panel">'
    found += _counts("Worlds below a quality gate", ["reason"], [((reason,), n) for reason, n in gates.most_common(30)])
    found += _counts("Photographs that gave no world", ["stage", "error", "reason"], stages.most_common(30))
    return found + "</section>"


def _cost(worlds: Sequence[Row]) -> str:
    seconds: dict[str, float] = {}
    for row in worlds:
        for item in _items(row["stage_s"]):
            seconds[str(item["stage"])] = seconds.get(str(item["stage"]), 0.0) + float(item["seconds"])
    accepted = sum(bool(row["accepted"]) for row in worlds)
    lines = "".join(
        f'<tr><td>{_text(stage)}</td><td class="number">{total:,.1f}</td>'
        f'<td class="number">{total / len(worlds):,.2f}</td>'
        f'<td class="number">{f"{total / accepted:,.2f}" if accepted else "-"}</td></tr>'
        for stage, total in seconds.items()
    )
    gpu = sum(_numbers(worlds, "gpu_seconds"))
    return (
        '<h2>Cost</h2><section class="panel"><table><tr><th>stage</th><th class="number">seconds</th>'
        '<th class="number">a world</th>'
        f'<th class="number">an accepted world</th></tr>{lines}</table>'
        f'<p class="small soft">{gpu:,.0f} GPU seconds; retries: {sum(_numbers(worlds, "retries")):,.0f}</p></section>'
    )


def _versions(worlds: Sequence[Row]) -> str:
    columns = {
        "Recipes": ("recipe", "config_sha256"),
        "Models and code": ("model_name", "package_version", "code_git_commit", "algorithm_version", "quality_version"),
        "Weights": ("weights_digests", "weights_licenses"),
        "Licenses": ("output_license", "seed_license", "accepted_licenses"),
        "Machines": ("gpu_name", "precision"),
    }
    found = '<h2>Versions, weights and licenses</h2><section class="panel">'
    for title, names in columns.items():
        counted = Counter(tuple(_brief(row[name]) for name in names) for row in worlds)
        found += _counts(title, names, counted.most_common(20))
    return found + "</section>"


def _counts(title: str, names: Sequence[str], counted: Iterable[tuple[Sequence[str], int]]) -> str:
    lines = "".join(
        "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in values) + f'<td class="number">{number:,}</td></tr>'
        for values, number in counted
    )
    if not lines:
        return f'<h3>{title}</h3><p class="small soft">None.</p>'
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    return f"<h3>{title}</h3><table><tr>{head}<th></th></tr>{lines}</table>"


def _brief(value: object) -> str:
    """A value in a table: digests by their first digits."""
    if isinstance(value, list):
        return ", ".join(_brief(item) for item in value) or "-"
    text = "-" if value is None else str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{32,64}", text) else text


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(worlds: Sequence[Row], column: str) -> list[float]:
    return [value for row in worlds if (value := _number(row[column])) is not None]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(value: object) -> str:
    return escape(for_terminal("" if value is None else value))
