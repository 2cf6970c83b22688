"""What a worker is told when it is created: picklable, and the provenance of every row it commits."""

from __future__ import annotations

from dataclasses import dataclass

from lyra_core.formats.patience import DEFAULT_DEADLINE_S
from tasks.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """All a worker needs, picklable.

    Attributes:
        out_url: where worlds are stored.
        run_id: of the batch, recorded per row.
        device: "cpu" or "cuda".
        num_devices: GPUs that make each world together.
        is_overlapping: while a world is finished on the CPU, the next one's networks run; None: if they do on a GPU.
        num_threads: CPU threads of torch and numba in this worker.
        weights_digests: of the weights the worlds were planned with; None takes those that are found.
        store_deadline_s: how long storage may fail in a row before the batch ends.
        accepted_licenses: licenses the user accepted by name, recorded per row.
        code_commit: git commit of the code, recorded and not hashed.
        scratch: folder on the worker's own disk for finished chunks of worlds in the making; ~ is the worker's home.
    """

    recipe: Recipe
    out_url: str
    run_id: str
    device: str = "cpu"
    num_devices: int = 1
    is_overlapping: bool | None = None
    num_threads: int = 1
    weights_digests: tuple[str, ...] | None = None
    store_deadline_s: float = DEFAULT_DEADLINE_S
    accepted_licenses: tuple[str, ...] = ()
    code_commit: str = ""
    scratch: str = "~/.lyra/scratch"

    @property
    def overlaps(self) -> bool:
        """Whether the networks go on with the next world while one is finished."""
        return self.device.startswith("cuda") if self.is_overlapping is None else self.is_overlapping
