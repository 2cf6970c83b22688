"""What a training says about itself: rows of numbers in `metrics.jsonl`, and the curve drawn of them."""

from __future__ import annotations

import json
from pathlib import Path

from lyra_core.extras import is_installed

METRICS = "metrics.jsonl"
CURVE = "curve.png"

Number = float | int
Row = dict[str, Number]


def append_row(row: Row, out_dir: Path) -> None:
    """Add a row to the metrics of a run's folder."""
    with (out_dir / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def told(row: Row) -> str:
    """A row as a line of text."""
    return " ".join(f"{name} {value:.4g}" for name, value in row.items())


def draw_curve(metrics: list[Row], path: Path) -> bool:
    """Plot loss and measures over time; returns whether a plotting library was there to do it."""
    if not is_installed("matplotlib"):
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = [row for row in metrics if "loss" in row]
    left.plot([row["elapsed_s"] for row in rows], [row["loss"] for row in rows])
    left.set(xlabel="seconds", ylabel="loss", yscale="log")
    measured = [row for row in metrics if "loss" not in row]
    for name in sorted({key for row in measured for key in row} - {"step", "elapsed_s"}):
        points = [(row["elapsed_s"], row[name]) for row in measured if name in row]
        right.plot(*zip(*points, strict=True), marker="o", label=name)
    right.set(xlabel="seconds")
    if right.get_lines():
        right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True
