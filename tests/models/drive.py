"""A driver in a process of its own: makes the worlds of a folder of seeds inline and prints how each ended.

python drive.py SEEDS OUT SCRATCH MODEL
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from flows.recipes import find_recipe
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.inline import InlinePool
from tasks.ledger import Ledger, RetryPolicy
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan
from tasks.worker_config import WorkerConfig


def main(seeds: str, out: str, scratch: str, model: str) -> None:
    fields = [f"model={model}", "artifacts=ply,cameras,preview", "quality_views=0", "width=64", "height=48"]
    recipe = find_recipe("parallax", fields)
    store, folder = open_store(out), Path(scratch)
    request = Request(recipe=recipe, run_id=folder.name)
    plan = make_plan(read_seeds([seeds]), store, request, SeedDigestCache(folder / "digests"), folder / "plan.jsonl")
    (folder / "planned").touch()
    while len(list(folder.parent.glob("*/planned"))) < 2:  # both start with nothing committed
        pass
    config = WorkerConfig(recipe=recipe, out_url=store.root, run_id=folder.name, scratch=str(folder / "scratch"))
    with InlinePool(config, Ledger(policy=RetryPolicy())) as pool:
        outcomes = [future.result() for future in [pool.submit(spec) for spec in plan.specs()]]
    print(json.dumps(Counter(outcome.kind for outcome in outcomes)))


if __name__ == "__main__":
    main(*sys.argv[1:])
