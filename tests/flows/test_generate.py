"""Photographs through the real flow: worlds, catalog, Prefect's record, and the second run that does nothing."""

from __future__ import annotations

import json
import urllib.request

from plyfile import PlyData

from catalogs.query import query
from lyra_core.formats.store import open_store

PARALLAX = (
    *("--recipe", "parallax", "--set", "width=160", "--set", "height=96", "--set", "flythrough_frames=8"),
    *("--workers", "2"),
)
FAULT = (
    *("--recipe", "parallax"),
    *("--set", "model=fault_model:load", "--set", "artifacts=ply", "--set", "quality_views=0"),
    *("--set", "width=64", "--set", "height=48", "--workers", "2"),
)


def post(api_url: str, path: str, document: dict) -> list[dict]:
    """A question to Prefect's API."""
    request = urllib.request.Request(
        f"{api_url}/{path}", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_photographs_become_worlds_a_catalog_and_a_flow_run(lyra, photographs, tmp_path):
    out = tmp_path / "worlds"
    finished = lyra("run", photographs, "--out", out, "--json", *PARALLAX)
    assert finished.code == 0, finished.err
    summary = finished.json
    assert (summary["created"], summary["rejected"], summary["snapshot_version"]) == (2, 0, 1)

    store = open_store(str(out))
    rows = query(store, "SELECT * FROM worlds ORDER BY name").to_pylist()
    assert [row["name"] for row in rows] == ["coffee_table", "launch_pad"]
    for row in rows:
        roles = {artifact["role"] for artifact in row["artifacts"]}
        assert {"ply", "video", "cameras", "transforms", "preview", "flythrough", "colmap_cameras"} <= roles
        for artifact in row["artifacts"]:
            assert (out / artifact["key"]).stat().st_size == artifact["bytes"]
        assert PlyData.read(str(out / row["ply_uri"]))["vertex"].count == row["num_splats"] > 1000
        assert row["num_frames"] == 81
        assert row["accepted"], row["reject_reasons"]
    assert query(store, "SELECT count(*) AS n FROM frames").to_pylist() == [{"n": 2 * 81}]

    api_url = summary["ui_url"] + "/api"
    runs = post(api_url, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert runs[0]["state_type"] == "COMPLETED"
    tasks = post(api_url, "task_runs/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
    assert {task["name"].rsplit("-", 1)[0] for task in tasks} == {"coffee_table", "launch_pad"}
    artifacts = post(api_url, "artifacts/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
    by_key = {artifact["key"]: artifact for artifact in artifacts}
    assert {"batch-progress", "batch-worlds", "batch-summary"} <= set(by_key)
    assert by_key["batch-progress"]["data"] == 100.0
    assert by_key["batch-summary"]["data"].count("data:image/jpeg;base64,") == 2

    again = lyra("run", photographs, "--out", out, *PARALLAX)
    assert again.code == 0
    assert "nothing to do: all 2 worlds exist" in again.out
    assert len(post(api_url, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 5})) == len(
        post(api_url, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 5})
    )
    assert post(api_url, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]["id"] == runs[0]["id"]


def test_inline_and_ray_make_the_same_catalog(lyra, photographs, tmp_path):
    rows = {}
    for executor in ("off", "local"):
        out = tmp_path / executor
        finished = lyra("run", photographs, "--out", out, "--ray", executor, "--json", *PARALLAX)
        assert finished.code == 0, finished.err
        sql = "SELECT * FROM (SELECT world_id, unnest(artifacts) AS a FROM worlds) ORDER BY world_id, a.role"
        rows[executor] = [
            (row["world_id"], row["a"]["role"], row["a"]["sha256"])
            for row in query(open_store(str(out)), sql).to_pylist()
        ]
    assert rows["off"] == rows["local"]


def test_the_same_photograph_twice_is_one_world_and_is_counted(lyra, make_seeds, tmp_path):
    folder = make_seeds("a.png", "b.png")
    (folder / "copy-of-a.png").write_bytes((folder / "a.png").read_bytes())
    finished = lyra("run", folder, "--out", tmp_path / "out", "--json", *FAULT)
    assert (finished.code, finished.json["created"], finished.json["duplicates"]) == (0, 2, 1)


def test_rejects_leave_exit_code_3_are_not_repeated_and_can_be_retried(lyra, make_seeds, tmp_path):
    folder, out = make_seeds("a.png", "bad.png"), tmp_path / "out"
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    first = lyra("run", folder, folder / "missing.jpg", "--out", out, "--json", *FAULT)
    assert first.code == 3, first.err
    assert (first.json["created"], first.json["rejected"]) == (1, 4)
    rejects = query(open_store(str(out)), "SELECT seed_uri, stage, reason FROM rejects").to_pylist()
    assert {r["seed_uri"].rsplit("/", 1)[1] for r in rejects} == {"bad.png", "empty.jpg", "text.png", "missing.jpg"}

    again = lyra("run", folder, folder / "missing.jpg", "--out", out, "--json", *FAULT)
    assert (again.code, again.json["created"], again.json["rejected"]) == (3, 0, 4)

    (folder / "empty.jpg").write_bytes((folder / "a.png").read_bytes() + b"x")
    (folder / "missing.jpg").write_bytes((folder / "a.png").read_bytes() + b"y")
    retried = lyra("run", folder, folder / "missing.jpg", "--out", out, "--retry-rejects", "--json", *FAULT)
    assert (retried.code, retried.json["created"], retried.json["rejected"]) == (3, 2, 2)
    open_rejects = query(open_store(str(out)), "SELECT seed_uri FROM rejects").to_pylist()
    assert {r["seed_uri"].rsplit("/", 1)[1] for r in open_rejects} == {"bad.png", "text.png"}
