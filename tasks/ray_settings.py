"""Where workers run on Ray, and what each may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySettings:
    """Where actors run and what each may use.

    Attributes:
        address: "local" starts a private cluster on this machine; otherwise an existing cluster's address.
        num_workers: actors.
        cpus_per_worker, gpus_per_worker: reserved per actor.
        world_deadline_s: a world not made or not stored within this is a hang; the actor is killed.
        load_deadline_s: for loading the models.
        factory_root: folder put on the workers' import path (local) or shipped to them (existing cluster).
        model_path: further folders of the import path, joined by os.pathsep, that exist where the workers run.
    """

    address: str = "local"
    num_workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    world_deadline_s: float = 3600
    load_deadline_s: float = 1800
    factory_root: str = "."
    model_path: str = ""
