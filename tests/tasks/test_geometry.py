"""The stage in a batch: columns, files and gates, on a model whose worlds have a known floor."""

from __future__ import annotations

import pytest

from catalogs.query import query
from catalogs.simchecks import list_simchecks
from flows.cli import _exit_code
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan
from tasks.recipe import Recipe, with_fields
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

ROW = "seed,camera_height_m\na.png,{}\n"


def batch(folder, assignments: list[str], height: str = "") -> dict:
    """One world of tests/models/yard_model.py; its row."""
    from PIL import Image

    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(folder / "a.png")
    (folder / "m.csv").write_text(ROW.format(height))
    recipe = Recipe(
        name="yard", description="for tests", model="yard_model:load", width=64, height=48,
        artifacts=("ply", "cameras"), quality_views=0,
    )  # fmt: skip
    recipe = with_fields(recipe, ["geometry=default", *assignments])
    store = open_store(folder / "out", fsync=False)
    digests = SeedDigestCache(folder / "digests.sqlite")
    plan = make_plan(
        read_seeds([str(folder / "m.csv")]), store, Request(recipe=recipe, run_id="r"), digests, folder / "p"
    )
    worker = Worker(WorkerConfig(recipe=recipe, out_url=store.root, run_id="r", scratch=str(folder / "scratch")))
    for spec in plan.specs():
        assert worker.make(spec) is None
        assert worker.finish(spec.world_id).kind == "created"
    worker.close()
    (row,) = query(store, "SELECT * FROM worlds ORDER BY created_at DESC LIMIT 1").to_pylist()
    return row


def test_a_floor_fills_its_columns(tmp_path, model_path):
    row = batch(tmp_path, ["artifacts=ply,cameras,mjcf"])
    assert row["up_source"] == "floor"
    assert row["world_up"][1] < -0.99
    assert row["floor_confidence"] > 0.5
    assert row["meters_per_unit"] is None
    assert (row["metric_scale_source"], row["scale_confidence"]) == ("relative", pytest.approx(0.3))
    assert row["floor_z_m"] == pytest.approx(-1.55, rel=1e-3)  # at eye level, for want of anything better
    assert 0 < row["floor_rmse_m"] < 0.1
    assert row["spawn_clearance_m"] > 0.36
    assert row["free_area_m2"] > 1
    assert row["geometry_reasons"] == []
    assert [stage["stage"] for stage in row["stage_s"]][:4] == ["seed", "video", "gaussians", "geometry"]
    assert {a["role"] for a in row["artifacts"]} == {"ply", "cameras", "mjcf"}
    assert row["num_surface_splats"] < row["num_splats"]
    assert max(row["bounds_max"]) < 20


def test_a_stated_height_makes_it_metric_and_another_world(tmp_path, model_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    plain, stated = batch(tmp_path / "one", []), batch(tmp_path / "two", [], "3.1")
    assert plain["world_id"] != stated["world_id"]
    assert stated["metric_scale_source"] == "camera_height"
    assert stated["meters_per_unit"] == pytest.approx(3.1 / 1.55 * plain["meters_per_unit_prior"], rel=1e-3)
    assert stated["floor_z_m"] == pytest.approx(-3.1, rel=1e-3)


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        (["geometry.max_floor_rmse_m=0.0001"], "floor_rmse_m"),
        (["geometry.needs_floor=true", "camera_path=pan-left"], "no trusted floor"),
    ],
)
def test_gates_keep_worlds_out(tmp_path, model_path, assignments, reason):
    row = batch(tmp_path, ["artifacts=ply,cameras,mjcf", *assignments])
    assert not row["accepted"]
    (found,) = row["reject_reasons"]
    assert found.startswith(reason)
    if reason == "no trusted floor":
        assert (row["floor_z_m"], row["spawn_m"], row["up_source"]) == (None, None, "camera")
        assert row["geometry_reasons"] != []
        assert "mjcf" not in {a["role"] for a in row["artifacts"]}


def test_meshes_are_files_where_a_recipe_wants_them(tmp_path, model_path):
    pytest.importorskip("fast_simplification")
    wanted = ["artifacts=ply,cameras,surfaces,mesh,collision,collision_obj", "geometry.mesh_voxels=50000"]
    row = batch(tmp_path, [*wanted, "geometry.collision_faces=300"])
    assert 50 < row["mesh_faces"] <= 320
    names = {a["key"].rpartition("/")[2] for a in row["artifacts"]}
    assert names >= {"surfaces.ply", "mesh.glb", "collision.glb", "collision.obj"}


@pytest.mark.parametrize("artifacts", ["ply,cameras,mjcf", "ply,cameras"])
def test_simcheck_tries_the_stored_file_or_one_that_it_makes(tmp_path, model_path, artifacts, capsys):
    pytest.importorskip("mujoco")
    row = batch(tmp_path, [f"artifacts={artifacts}"])
    out = str(tmp_path / "out")
    assert _exit_code(["simcheck", out]) == 0
    assert "1 of 1 worlds hold" in capsys.readouterr().out
    (found,) = list_simchecks(open_store(out))
    assert found.world_id == row["world_id"]
    assert found.drop_test_ok
    assert abs(found.ball_error_m) < 0.05
    assert found.mjcf == ("stored" if "mjcf" in artifacts else "made")
    assert _exit_code(["simcheck", out]) == 0
    assert list_simchecks(open_store(out)) == [found]  # not tried again
    assert query(open_store(out), "SELECT drop_test_ok FROM worlds")["drop_test_ok"].to_pylist() == [True]
