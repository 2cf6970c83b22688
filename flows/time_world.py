"""One world of the recipe `mini` from photograph to commit, in this process alone: seconds by stage and peak memory.

    python -m flows.time_world --cores 2 --frames 81

The second of two worlds counts: the first compiles the kernels' cache, as the installation does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer


def main(
    cores: Annotated[int, typer.Option(help="Cores of this machine that are used.")] = 2,
    frames: Annotated[int, typer.Option(help="Frames of the world, 1 + 80 k.")] = 81,
    weights: Annotated[Path | None, typer.Option(help="Folder of packed weights (default: of this package).")] = None,
) -> None:
    """Time a world and print its numbers as JSON.

    Example: python -m flows.time_world --cores 2
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))  # before torch counts the machine's cores
    sys.stdout.write(json.dumps(measure(cores, frames, weights)) + "\n")


def measure(cores: int, frames: int, weights: Path | None) -> dict[str, object]:
    """Make two photographs' worlds one after the other; numbers of the second."""
    from flows.recipes import find_recipe
    from lyra_core.evaluation.results import cpu_name
    from lyra_core.factory import factory_root
    from lyra_core.formats.store import open_store
    from lyra_core.seed_digests import SeedDigestCache
    from lyra_core.world_models.generative import GenerativeModel
    from tasks.manifest import read_seeds
    from tasks.outcome import Outcome
    from tasks.plan import Request, make_plan
    from tasks.worker import Worker
    from tasks.worker_config import WorkerConfig

    recipe = find_recipe("mini", [f"num_frames={frames}"])
    if weights is not None:
        recipe = recipe.model_copy(update={"weights": str(weights)})
    with tempfile.TemporaryDirectory(prefix="lyra-world-") as scratch:
        folder = Path(scratch)
        store = open_store(str(folder / "worlds"))
        request = Request(recipe=recipe, run_id="benchmark", limit=2)
        rows = read_seeds([str(factory_root() / "examples" / "seeds")])
        plan = make_plan(rows, store, request, SeedDigestCache(folder / "digests.sqlite"), folder / "plan.jsonl")
        config = WorkerConfig(
            recipe=recipe,
            out_url=str(folder / "worlds"),
            run_id="benchmark",
            num_threads=cores,
            scratch=str(folder / "scratch"),
        )
        worker = Worker(config)
        outcome, seconds = None, 0.0
        for spec in plan.specs():
            begin = time.perf_counter()
            failure = worker.make(spec)
            if failure is not None:
                raise SystemExit(f"{failure.stage}: {failure.message}")
            outcome = worker.finish(spec.world_id)
            seconds = time.perf_counter() - begin
        worker.close()
        if not isinstance(outcome, Outcome) or not isinstance(worker.model, GenerativeModel):
            raise SystemExit(
                f"wanted two worlds of a generative model, found {outcome} of {type(worker.model).__name__}"
            )
        return {
            "cpu": cpu_name(),
            "cores": cores,
            "load_average": [round(x, 2) for x in os.getloadavg()],
            "precision": str(worker.model.rollout.models.dit.dtype).removeprefix("torch."),
            "seconds": round(seconds, 2),
            "stages": {name: round(value, 2) for name, value in outcome.stage_s.items()},
            "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }


if __name__ == "__main__":
    typer.run(main)
