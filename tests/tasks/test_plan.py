"""Planning: ids, duplicates, what exists, what was rejected, and that a long manifest costs no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalogs.commit import commit
from catalogs.rejects import list_rejects, reject
from flows.recipes import find_recipe
from lyra_core.formats.store import open_store
from lyra_core.records import RejectRecord, WorldRecord
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan, write_plan_rejects

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(tmp_path):
    """Plan some seeds into tmp_path / "out"."""

    def make(*sources, assignments=(), **request) -> Plan:
        return make_plan(
            read_seeds([str(source) for source in sources]),
            open_store(str(tmp_path / "out")),
            Request(recipe=find_recipe("parallax", list(assignments)), run_id="run", **request),
            SeedDigestCache(tmp_path / "digests.sqlite"),
            tmp_path / "plan.jsonl",
        )

    return make


def store(tmp_path):
    return open_store(str(tmp_path / "out"))


def test_each_seed_is_a_world_and_a_plan_leaves_nothing(plan, make_seeds, tmp_path):
    made = plan(make_seeds("a.png", "b.png"))
    specs = list(made.specs())
    assert (made.num_seeds, made.num_remaining, [s.ordinal for s in specs]) == (2, 2, [0, 1])
    assert {Path(s.seed_uri).name for s in specs} == {"a.png", "b.png"}
    assert list(made.specs()) == specs
    assert made.weights_digests == ()
    made.discard()
    assert not list(tmp_path.glob("plan*"))


def test_a_wrong_row_costs_itself_though_others_name_its_seed(plan, make_seeds, tmp_path):
    """Three wrong rows are three rejects, and stay them: neither a world of their seed nor a second run adds one."""
    lines = ["seed,hfov_deg,camera_path", "a.png,,", "a.png,nan,", "a.png,400,", "a.png,,gone.npz"]
    manifest = make_seeds("a.png") / "m.csv"
    manifest.write_text("\n".join(lines))
    for moment in (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)):
        made = plan(manifest)
        assert made.num_rejected == 3
        assert len(made.new_rejects) == (3 if moment.day == 1 else 0)
        for record in made.new_rejects:
            reject(store(tmp_path), replace(record, created_at=moment))
        for spec in made.specs():
            world = WorldRecord(
                world_id=spec.world_id, seed_uri=spec.seed_uri, recipe="parallax", run_id="run",
                variant=0, created_at=moment + timedelta(hours=1),
            )  # fmt: skip
            commit(store(tmp_path), world)
    found = list_rejects(store(tmp_path))
    assert [record.stage for record in found] == ["manifest", "manifest", "plan"]
    assert [record.reason.split(":")[0].rpartition(" ")[2] for record in found] == ["3", "4", "5"]


def test_planning_writes_nothing_to_the_output(plan, make_seeds, tmp_path):
    plan(make_seeds("a.png"))
    assert not (tmp_path / "out").exists()


def test_the_same_photograph_twice_is_one_world(plan, make_seeds):
    folder = make_seeds("a.png")
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    made = plan(folder)
    assert (made.num_seeds, made.num_remaining, made.num_duplicates) == (2, 1, 1)


def test_what_is_committed_is_not_planned(plan, make_seeds, tmp_path):
    folder = make_seeds("a.png", "b.png")
    first = next(iter(plan(folder).specs()))
    record = WorldRecord(world_id=first.world_id, run_id="x", name="a", recipe="parallax", seed_uri=first.seed_uri)
    commit(store(tmp_path), record)
    made = plan(folder)
    assert (made.num_existing, made.num_remaining) == (1, 1)
    assert first.world_id not in {s.world_id for s in made.specs()}


def test_rejects_are_left_alone_unless_asked_for(plan, make_seeds, tmp_path):
    folder = make_seeds("a.png")
    (folder / "empty.jpg").touch()
    spec = next(s for s in plan(folder).specs() if s.seed_uri.endswith("a.png"))
    reject(
        store(tmp_path),
        RejectRecord(run_id="x", ordinal=0, stage="video", reason="?", world_id=spec.world_id, seed_uri=spec.seed_uri),
    )
    made = plan(folder)
    assert made.num_rejected_before == 1
    assert spec.world_id not in {s.world_id for s in made.specs()}
    assert spec.world_id in {s.world_id for s in plan(folder, retry_rejects=True).specs()}


def test_an_unreadable_seed_is_a_reject_and_the_rest_is_planned(plan, make_seeds, tmp_path):
    folder = make_seeds("a.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"seed\n{folder}/a.png\n{folder}/gone.png\n")
    made = plan(manifest)
    assert made.num_remaining == 1
    assert [r.ordinal for r in made.new_rejects] == [1]
    assert "gone.png" in made.new_rejects[0].reason
    write_plan_rejects(made, store(tmp_path))
    assert plan(manifest).num_rejected_before == 1


def test_a_second_run_writes_no_reject_again(plan, make_seeds, tmp_path):
    make_seeds("a.png", "b.png")
    manifest = tmp_path / "m.jsonl"
    rows = [
        {"seed": "seeds/a.png"},
        {"seed": "seeds/gone.png"},
        {"seed": "../out.png"},
        {"prompt": "no seed"},
        {"prompt": "no seed either"},
        {"seed": "seeds/b.png", "camera_path": "nonsense"},
        {"seed": "seeds/b.png", "frames": 82},
    ]
    manifest.write_text("\n".join([*(json.dumps(row) for row in rows), "{oops", "{}", '["x"]']))
    first = plan(manifest)
    assert (first.num_seeds, first.num_remaining, len(first.new_rejects)) == (9, 1, 8)
    lines = [r.reason.partition(": ")[0].rpartition(" ")[2] for r in first.new_rejects]
    assert lines == ["2", "3", "4", "5", "6", "7", "8", "10"]
    write_plan_rejects(first, store(tmp_path))
    second = plan(manifest)
    assert (second.new_rejects, second.num_rejected_before, second.num_remaining) == ([], 8, 1)


def test_names_that_are_not_utf8_are_planned(plan, make_seeds, tmp_path):
    folder = make_seeds("a.png", "b.png")
    (folder / "b.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    specs = list(plan(folder).specs())
    assert [spec.seed_uri.rsplit("/", 1)[1] for spec in specs] == ["a.png", "caf\udce9.png"]
    assert specs[1].name.startswith("caf\\xe9-")


def test_an_angle_prompts_and_paths_that_only_planning_can_judge(plan, make_seeds, tmp_path):
    make_seeds("a.png")
    manifest = tmp_path / "m.jsonl"
    rows = [{"seed": "seeds/a.png", "prompt": "[" * 90_000}, {"seed": "seeds/a.png", "prompt": '["one", "two"]'}]
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    made = plan(manifest)
    assert (made.num_remaining, len(made.new_rejects)) == (1, 1)
    assert "m.jsonl, line 2: wanted one caption for each of 1 chunks" in made.new_rejects[0].reason


def test_camera_files_beside_the_manifest(plan, make_seeds, tmp_path, monkeypatch):
    make_seeds("a.png")
    poses = [{"position": [x, 0, x], "look_at": [0, 0, 4]} for x in (0, 1)]
    (tmp_path / "path.json").write_text(json.dumps(poses))
    (tmp_path / "m.csv").write_text("seed,camera_path\nseeds/a.png,path.json\n")
    monkeypatch.chdir("/")
    (spec,) = plan(tmp_path / "m.csv").specs()
    assert spec.camera_path == str(tmp_path / "path.json")


def test_what_changes_the_output_changes_the_id_and_nothing_else_does(plan, make_seeds):
    folder = make_seeds("a.png")

    def world(*assignments: str) -> str:
        return next(iter(plan(folder, assignments=assignments).specs())).world_id

    plain = world()
    assert world() == plain
    assert world("seconds_per_world=1", "description=else") == plain
    changed = ["width=320", "fps=24", "camera_path=orbit-left", "prompt=a place", "num_frames=161", "video_crf=20"]
    assert len({plain, *(world(c) for c in changed)}) == 1 + len(changed)


def test_a_longer_path_shares_the_chunks_of_a_shorter_one(plan, make_seeds):
    folder = make_seeds("a.png")
    short = next(iter(plan(folder, assignments=["camera_path=pan-left"]).specs()))
    assert short.chunk_ids[-1] == short.world_id
    variants = list(plan(folder, assignments=["variants=3"]).specs())
    assert len({s.world_id for s in variants}) == 3
    assert [s.variant for s in variants] == [0, 1, 2]


def test_limit_looks_at_so_many_seeds(plan, make_seeds):
    assert plan(make_seeds("a.png", "b.png", "c.png"), limit=2).num_seeds == 2


PLANNING = """
import json, sys, time
from pathlib import Path
from flows.parameters import GenerateParameters
from flows.session import Session
from flows.settings import load_settings
folder = Path(sys.argv[1])
settings = load_settings({"home": str(folder / "home")}, folder)
parameters = GenerateParameters(seeds=[sys.argv[2]], out=str(folder / "out"), run_id=sys.argv[3])
start = time.perf_counter()
plan = Session.planned(parameters, settings).plan
seconds = time.perf_counter() - start
# Not getrusage: a child starts with its parent's peak.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([plan.num_remaining, seconds, int(peak.split()[1]) / 1024]))
"""


@pytest.mark.slow
def test_a_hundred_thousand_rows_plan_quickly_in_flat_memory(tmp_path):
    """30 s on two quiet cores; memory grows by the ids alone."""
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for index in range(100_000):
        (seeds / f"{index:06d}.jpg").write_bytes(b"%d" % index)
    found = {}
    for rows in (10_000, 100_000):
        manifest = tmp_path / f"{rows}.csv"
        manifest.write_text("seed,prompt\n" + "".join(f"seeds/{i:06d}.jpg,a place\n" for i in range(rows)))
        done = subprocess.run(
            [sys.executable, "-c", PLANNING, str(tmp_path), str(manifest), f"run-{rows}"],
            capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=600,
        )  # fmt: skip
        found[rows] = json.loads(done.stdout)
    (small, _, small_mb), (large, seconds, large_mb) = found[10_000], found[100_000]
    print(f"100,000 rows: {seconds:.1f} s, {large_mb:.0f} MB; 10,000 rows: {small_mb:.0f} MB")
    assert (small, large) == (10_000, 100_000)
    assert large_mb - small_mb < 40
    assert seconds < 30 * max(1.0, _slowness())


def _slowness() -> float:
    """Wall over CPU time of a short busy loop: how much of a core this process gets here."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.5:
        pass
    return (time.perf_counter() - wall) / 0.5
