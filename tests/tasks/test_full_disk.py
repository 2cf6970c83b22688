"""A disk that fills up: one clear sentence, nothing half-seen, and the same command finishes once there is room."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# A file system of its own, made in a user namespace: no privilege of the host is needed.
MOUNTED = """
mount -t tmpfs -o size=$2 tmpfs "$1" || exit 99
shift 2
exec "$@"
"""

SCRIPT = """
import json, sys
from pathlib import Path
from catalogs.commit import committed_ids
from flows.recipes import find_recipe
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.outcome import Failure, Waiting
from tasks.plan import Request, make_plan
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

seeds, disk, scratch = map(Path, sys.argv[1:])
settings = "model=fault_model:load artifacts=ply,lossless quality_views=0 width=64 height=48"
recipe = find_recipe("parallax", settings.split())
store = open_store(str(disk / "out"))
rows = read_seeds([str(seeds)])
plan = make_plan(rows, store, Request(recipe=recipe, run_id="r"), SeedDigestCache(scratch / "d"), scratch / "plan")
specs = list(plan.specs())
worker = Worker(WorkerConfig(recipe=recipe, out_url=store.root, run_id="r", store_deadline_s=3))

def attempt():
    found = []
    for spec in specs:
        failure = worker.make(spec)
        assert failure is None, failure
        while isinstance(result := worker.finish(spec.world_id), Waiting):
            assert "the disk is full" in result.reason
        is_failure = isinstance(result, Failure)
        found.append([result.error_type, result.message, result.blames_store] if is_failure else result.kind)
    return found

ballast = disk / "ballast"
block = b"x" * 4096
try:
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(block)
except OSError:
    pass
with ballast.open("r+b") as file:
    file.truncate(ballast.stat().st_size - 24 * 1024)  # room for a few files, not for a world
first = attempt()
half = [str(p) for p in (disk / "out").rglob("*") if p.is_file() and "worlds/" not in str(p)]
committed = sorted(committed_ids(store))
ballast.unlink()
print(json.dumps({"full": first, "committed": committed, "catalog": half, "room": attempt()}))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (util-linux)")
def test_a_full_disk_loses_nothing(make_seeds, tmp_path, model_path):
    seeds = make_seeds("a.png", "b.png")
    for name in ("disk", "scratch"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [
            *("unshare", "-rm", "sh", "-c", MOUNTED, "sh", str(tmp_path / "disk"), "8m"),
            *(sys.executable, "-c", SCRIPT, str(seeds), str(tmp_path / "disk"), str(tmp_path / "scratch")),
        ],
        capture_output=True, text=True, timeout=120, cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY}:{model_path}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip(f"no file system of its own here: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for error_type, message, blames_store in found["full"]:
        assert (error_type, blames_store) == ("StoreError", True)
        assert "the disk is full: free space or choose another output" in message
    assert (found["committed"], found["catalog"]) == ([], [])
    assert found["room"] == ["created", "created"]
