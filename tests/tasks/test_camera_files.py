"""A manifest's camera files: read at planning, a wrong one is the reject of its row, none changes unnoticed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flows.recipes import find_recipe
from lyra_core.errors import CameraPathError
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.plan import Plan, Request, make_plan
from tasks.video import generate_video

NERFSTUDIO = {"camera_path": [{"camera_to_world": np.eye(4).flatten().tolist(), "fov": 50}], "seconds": 4}


@pytest.fixture
def plan(tmp_path, make_seeds):
    folder = make_seeds("a.png", "b.png", "c.png")

    def make(*camera_files) -> Plan:
        rows = [
            {"seed": f"{folder}/{name}.png", "camera_path": str(file)}
            for name, file in zip("abc", camera_files, strict=False)
        ]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return make_plan(
            read_seeds([str(tmp_path / "m.jsonl")]),
            open_store(str(tmp_path / "out")),
            Request(recipe=find_recipe("parallax"), run_id="run"),
            SeedDigestCache(tmp_path / "digests.sqlite"),
            tmp_path / "plan.jsonl",
        )

    return make


def test_a_wrong_file_is_the_reject_of_its_row(plan, tmp_path):
    scaled = np.tile(np.diag([2.0, 2.0, 2.0, 1.0]), (81, 1, 1))
    lens = np.array([[100, 0, 48], [0, 100, 32], [0, 0, 1.0]])
    np.savez(tmp_path / "scaled.npz", w2c=scaled, intrinsics=lens, image_height=64, image_width=96)
    (tmp_path / "path.json").write_text(json.dumps(NERFSTUDIO))
    (tmp_path / "wrong.json").write_text('{"cameras": []}')
    made = plan(tmp_path / "scaled.npz", tmp_path / "path.json", tmp_path / "wrong.json")
    assert made.num_remaining == 1
    assert [(r.ordinal, r.stage, r.error_type) for r in made.new_rejects] == [
        (0, "plan", "CameraPathError"),
        (2, "plan", "CameraPathError"),
    ]
    assert "scaled by 2" in made.new_rejects[0].reason
    assert "wrong.json" in made.new_rejects[1].reason


def test_a_file_that_changes_after_planning_makes_no_world(plan, tmp_path):
    file = tmp_path / "path.json"
    file.write_text(json.dumps(NERFSTUDIO))
    spec = next(iter(plan(file).specs()))
    file.write_text(json.dumps(NERFSTUDIO, indent=1))
    with pytest.raises(AttributeError):  # past the look at the file, to a model that is not there
        generate_video(None, None, spec, find_recipe("parallax"), tmp_path)
    file.write_text(json.dumps({**NERFSTUDIO, "camera_path": 2 * NERFSTUDIO["camera_path"]}))
    with pytest.raises(CameraPathError, match=r"path.json: its cameras changed after planning"):
        generate_video(None, None, spec, find_recipe("parallax"), tmp_path)
