"""A batch in this process, without Ray and without Prefect: worlds, catalog and snapshot as `lyra run` makes them.

python examples/batch_in_process.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogs.compaction import compact
from flows.parameters import GenerateParameters
from flows.session import Session
from flows.settings import Settings
from tasks.plan import write_plan_rejects

SEEDS = [str(Path(__file__).parent / "seeds" / "manifest.csv")]
OUT = "./worlds"
RECIPE = "mini"
FIELDS: list[str] = []  # changes to the recipe, as `--set` takes them: ["camera_path=orbit-left"]
LIMIT = 2
SETTINGS = Settings(executor="inline")


def main(
    out: str = OUT,
    recipe: str = RECIPE,
    fields: Sequence[str] = FIELDS,
    settings: Settings = SETTINGS,
    limit: int = LIMIT,
) -> None:
    """Make the worlds that do not exist yet; running it again makes nothing."""
    parameters = GenerateParameters(seeds=SEEDS, out=out, recipe=recipe, assignments=list(fields), limit=limit)
    with Session.planned(parameters, settings, tell=print) as session:
        print(f"{session.plan.num_seeds} photographs, {session.plan.num_remaining} worlds to make")
        session.check_output()
        write_plan_rejects(session.plan, session.store)
        pool = session.open_pool()
        futures = [pool.submit(spec) for spec in session.plan.specs()]
        for future in futures:
            outcome = future.result()
            print(f"{outcome.kind}: {outcome.spec.name}, {outcome.num_splats or 0:,} Gaussians")
        compact(session.store)  # the commits become a snapshot for any Parquet reader


if __name__ == "__main__":
    main()
