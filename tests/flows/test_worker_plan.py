"""How many workers a batch gets, and that a flow uses the pool that is open already."""

from __future__ import annotations

import pytest

from flows import worker_plan
from flows.settings import Settings
from flows.worker_plan import plan_workers
from lyra_core.errors import ConfigError


@pytest.fixture
def machine(monkeypatch):
    def describe(*, cores: int, gpus: int = 0, gigabytes: int = 64) -> None:
        monkeypatch.setattr(worker_plan.os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(worker_plan, "count_gpus", lambda: gpus)
        monkeypatch.setattr(worker_plan, "_memory_bytes", lambda: gigabytes * 2**30)

    return describe


@pytest.mark.parametrize(
    ("cores", "gpus", "gigabytes", "worlds", "wanted"),
    [
        (2, 0, 64, 9, (2, "cpu", 1)),
        (2, 0, 3, 9, (1, "cpu", 2)),  # memory for one
        (64, 0, 640, 1000, (8, "cpu", 8)),
        (16, 4, 640, 1000, (4, "cuda", 4)),
        (16, 4, 640, 2, (2, "cuda", 8)),  # never more than worlds
    ],
)
def test_workers_follow_the_machine(machine, cores, gpus, gigabytes, worlds, wanted):
    machine(cores=cores, gpus=gpus, gigabytes=gigabytes)
    found = plan_workers(Settings(), worlds)
    assert (found.num_workers, found.device, found.num_threads) == wanted
    assert found.gpus_per_worker == (1.0 if wanted[1] == "cuda" else 0.0)


def test_inline_is_one_worker_with_all_threads(machine):
    machine(cores=8)
    found = plan_workers(Settings(executor="inline", workers=4), 100)
    assert (found.num_workers, found.num_threads) == (1, 8)


def test_cuda_without_a_gpu_is_told_before_anything_starts(machine):
    machine(cores=2)
    with pytest.raises(ConfigError, match="wanted cuda, found no NVIDIA GPU"):
        plan_workers(Settings(device="cuda"), 1)


def test_an_existing_cluster_needs_a_number_of_workers(machine):
    machine(cores=2)
    with pytest.raises(ConfigError, match="needs --workers N"):
        plan_workers(Settings(ray_address="10.0.0.1:6379"), 1)
    found = plan_workers(Settings(ray_address="10.0.0.1:6379", workers=40, device="cuda", cpus_per_worker=4), 1000)
    assert (found.num_workers, found.num_threads, found.gpus_per_worker) == (40, 4, 1.0)


def test_several_gpus_for_one_world_make_fewer_workers(machine):
    machine(cores=16, gpus=5)
    found = plan_workers(Settings(gpus_per_world=2), 1000)
    assert (found.num_workers, found.gpus_per_worker) == (2, 2.0)
    with pytest.raises(ConfigError, match="wanted 8 NVIDIA GPUs for each world, found 5"):
        plan_workers(Settings(gpus_per_world=8), 1000)
