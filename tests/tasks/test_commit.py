"""The row of a world: what is known is told, and nothing is claimed that nobody measured."""

from __future__ import annotations

from dataclasses import fields

import pytest

from catalogs.commit import read_commit
from flows.recipes import find_recipe
from lyra_core.formats.store import open_store
from lyra_core.geometry.requests import cameras_digest, request_digest_parts
from lyra_core.records import WorldRecord
from lyra_core.seed_digests import SeedDigestCache
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

# Null in a world of the baseline without license and refinement: what nothing computes, and what it has none of.
NOT_COMPUTED = {
    *("usd_uri", "safety_checker", "has_people", "has_faces", "has_text"),
}
# Of the stage that the baseline's recipe leaves out, and of `lyra simcheck`.
GEOMETRY = {
    *("world_up", "up_source", "meters_per_unit_prior", "scale_confidence", "world_to_ground", "mesh_faces"),
    *("floor_z_m", "floor_rmse_m", "floor_confidence", "floor_inlier_frac", "floor_tilt_deg", "floor_spread_deg"),
    *("spawn_m", "spawn_yaw_rad", "spawn_clearance_m", "free_area_m2", "drop_test_ok"),
}
NOT_OF_THE_BASELINE = {
    *("checkpoint_uri", "checkpoint_sha256", "speed", "inference_steps", "guidance", "prompt", "negative_prompt"),
    *("num_keyframes", "camera_residual_deg", "camera_residual_percent", "cameras_source", "is_refined"),
    *("refine_gain_db", "meters_per_unit", "gpu_name", "peak_vram_bytes", "revisit_db"),
}
# The path does not come back.
OF_A_RETURN = {"revisit_db"}
OF_THE_RUN = {"code_git_commit", "attempt", "retries", "queue_s", "worker_id", "device_idle_s"}


@pytest.fixture(scope="module")
def row(tmp_path_factory) -> WorldRecord:
    """Of one world of the baseline, from a manifest with license, source and credit."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("commit")
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(folder / "a.png")
    line = "seed,license,source_url,attribution\na.png,CC0-1.0,pkg:pypi/x,Somebody\n"
    (folder / "manifest.csv").write_text(line)
    recipe = find_recipe("parallax", ["width=64", "height=48", "flythrough_frames=2", "camera_path=truck-right"])
    store = open_store(folder / "out", fsync=False)
    request, digests = Request(recipe=recipe, run_id="run"), SeedDigestCache(folder / "digests.sqlite")
    plan = make_plan(read_seeds([str(folder / "manifest.csv")]), store, request, digests, folder / "plan.jsonl")
    worker = Worker(WorkerConfig(recipe=recipe, out_url=store.root, run_id="run", scratch=str(folder / "scratch")))
    (spec,) = plan.specs()
    assert worker.make(spec) is None
    assert worker.finish(spec.world_id).kind == "created"
    worker.close()
    return read_commit(store, spec.world_id).world


def test_every_other_column_is_filled(row):
    empty = {f.name for f in fields(WorldRecord) if getattr(row, f.name) is None} - OF_THE_RUN - {"output_license"}
    assert empty == NOT_COMPUTED | NOT_OF_THE_BASELINE | GEOMETRY | OF_A_RETURN


def test_the_baseline_claims_no_metres_and_no_up(row):
    assert (row.metric_scale_source, row.meters_per_unit, row.world_up) == ("relative", None, None)


def test_how_it_was_computed_and_what_was_asked(row):
    assert row.precision == "float32"
    assert row.trajectory_sha256 == cameras_digest(request_digest_parts("truck-right", 81))
    assert (row.seed_license, row.seed_source_url, row.seed_attribution) == ("CC0-1.0", "pkg:pypi/x", "Somebody")


def test_the_preview_is_found(row):
    assert row.thumb_uri == f"{row.folder}preview.jpg"


def test_what_nothing_computes_says_so():
    meanings = {f.name: f.metadata["meaning"] for f in fields(WorldRecord)}
    assert {name for name, meaning in meanings.items() if meaning.endswith("null: not computed")} == NOT_COMPUTED
