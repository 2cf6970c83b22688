"""What a worker is told when it is created: picklable, and the provenance of every row it commits."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """All a worker needs, picklable.

    Attributes:
        out_url: where worlds are stored.
        run_id: of the batch, recorded per row.
        device: "cpu" or "cuda".
        num_threads: CPU threads of torch and numba in this worker.
        accepted_licenses: licences the user accepted by name, recorded per row.
        code_commit: git commit of the code, recorded and not hashed.
        scratch: folder on the worker's own disk for finished chunks of worlds in the making; ~ is the worker's home.
    """

    recipe: Recipe
    out_url: str
    run_id: str
    device: str = "cpu"
    num_threads: int = 1
    accepted_licenses: tuple[str, ...] = ()
    code_commit: str = ""
    scratch: str = "~/.lyra/scratch"
