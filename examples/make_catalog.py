"""A catalog of 27 worlds: nine photographs along three camera paths, then what simulators and data sets ask of it.

python examples/make_catalog.py       # about five minutes on two cores; running it again makes only what is missing
"""

from __future__ import annotations

from collections.abc import Sequence

import batch_in_process

from catalogs.query import query
from flows.settings import Settings
from lyra_core.formats.store import open_store

OUT = "./catalog"
RECIPE = "mini"
PATHS = ("dolly-in", "orbit-left", "truck-right")
SETTINGS = Settings(executor="inline")
LIMIT = 9
QUESTIONS = (
    "SELECT trajectory_name, count(*) AS worlds, round(avg(psnr_db), 1) AS psnr_db FROM worlds GROUP BY 1 ORDER BY 1",
    "SELECT name, trajectory_name, floor_rmse_m FROM worlds WHERE floor_rmse_m < 0.05",
    "SELECT name, trajectory_name, num_splats FROM worlds ORDER BY num_splats DESC LIMIT 3",
)


def main(
    out: str = OUT,
    recipe: str = RECIPE,
    paths: Sequence[str] = PATHS,
    fields: Sequence[str] = (),
    settings: Settings = SETTINGS,
    limit: int = LIMIT,
) -> int:
    """Make the worlds of every path, print a few questions and their answers; returns how many worlds there are."""
    for path in paths:
        batch_in_process.main(out, recipe, [f"camera_path={path}", *fields], settings, limit)
    store = open_store(out)
    for sql in QUESTIONS:
        print(f"\n{sql}")
        for row in query(store, sql).to_pylist():
            print("   ", ", ".join(f"{name} {value}" for name, value in row.items()))
    return int(query(store, "SELECT count(*) AS n FROM worlds").to_pylist()[0]["n"])


if __name__ == "__main__":
    print(f"\n{main()} worlds")
