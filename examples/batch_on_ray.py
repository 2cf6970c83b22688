"""The same batch on a Ray cluster: one worker per GPU, or a few CPU workers on this machine.

python examples/batch_on_ray.py                              # a private cluster on this machine
RAY_ADDRESS=ray-head:6379 python examples/batch_on_ray.py    # an existing one; set WORKERS, and OUT to a bucket
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import batch_in_process

from flows.settings import Settings

ADDRESS = os.environ.get("RAY_ADDRESS", "local")
WORKERS = 2
OUT = "./worlds"  # s3://bucket/worlds where workers are on other machines
RECIPE = "mini"
FIELDS: list[str] = []
SETTINGS = Settings(executor="ray", ray_address=ADDRESS, workers=WORKERS)


def main(
    out: str = OUT, recipe: str = RECIPE, fields: Sequence[str] = FIELDS, settings: Settings = SETTINGS, limit: int = 8
) -> None:
    """Make worlds on workers that load the model once each; a worker that dies costs one attempt of one world."""
    batch_in_process.main(out=out, recipe=recipe, fields=fields, settings=settings, limit=limit)


if __name__ == "__main__":
    main()
