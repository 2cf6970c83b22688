"""The examples run as they are, on small frames; each is short and begins with its constants."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from flows.settings import Settings
from lyra_core import load_model
from lyra_core.dataset import FileCache
from lyra_core.formats.clip import probe_video
from lyra_core.formats.store import open_store
from lyra_core.geometry.trajectory_files import load_trajectory
from lyra_core.values import Gaussians

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = ["width=96", "height=64", "quality_views=1", "flythrough_frames=2", "artifacts=ply,video,cameras,transforms"]


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Two worlds of `parallax`, made by an example and read by others."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        example("batch_in_process").main(
            out=str(folder / "worlds"),
            recipe="parallax",
            fields=SMALL,
            settings=Settings(executor="inline", device="cpu", home=folder / "home"),
        )
    return str(folder / "worlds")


def test_each_is_short_and_listed():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 60, file
        assert f"[{file.name}]({file.name})" in listed, file
    assert len(list(EXAMPLES.glob("*.py"))) >= 10


def test_a_photograph_becomes_a_world(tmp_path):
    example("photograph_to_world").main("custom_model:load", tmp_path)
    assert probe_video(tmp_path / "video.mp4").num_frames == 81
    assert len(Gaussians.load_ply(tmp_path / "world.ply")) > 1000
    assert np.asarray(Image.open(tmp_path / "view.jpg")).std() > 10


def test_a_camera_path_of_ones_own(tmp_path):
    example("custom_camera_path").main("custom_model:load", tmp_path, (128, 80))
    assert len(Gaussians.load_ply(tmp_path / "world.ply")) > 1000
    path = load_trajectory(tmp_path / "spiral.npz", image_height=80, image_width=128)
    assert len(path) == 81
    assert path.centers_m[-1].tolist() == pytest.approx([0, 0, 0.4], abs=1e-6)


def test_a_batch_in_this_process_and_a_new_view_of_it(worlds, tmp_path):
    example("render_new_view").main(worlds, tmp_path / "view.jpg")
    image = Image.open(tmp_path / "view.jpg")
    assert image.size == (192, 128)
    assert np.asarray(image).std() > 10


def test_four_tools_read_the_same_rows(worlds):
    pytest.importorskip("polars")
    pytest.importorskip("pandas")
    names = example("read_catalog").main(worlds)
    assert sorted(names) == ["duckdb", "pandas", "polars", "pyarrow"]
    assert all(found == names["duckdb"] for found in names.values())


def test_tools_answer_alike(worlds):
    # Ray Data starts a cluster, and the programme prints what it finds
    found = example("query_catalog").main(worlds, ("duckdb", "polars", "datasets"))
    assert {"duckdb"} <= set(found)
    assert all(rows == found["duckdb"] for rows in found.values())
    assert len(found["duckdb"][0]) == 4


def test_files_are_verified_before_they_are_exported(worlds, tmp_path):
    written = example("verify_and_export").main(worlds, tmp_path / "export", "true")
    assert sorted(file.name for file in written) == sorted(["gaussians.ply", "transforms.json", "video.mp4"] * 2)
    assert len(json.loads(written[-1].with_name("transforms.json").read_text())["frames"]) == 81


def test_a_world_is_exported_for_simulators(worlds, tmp_path):
    pytest.importorskip("pxr")
    files = example("export_for_simulators").main(worlds, tmp_path, "true")
    assert files["usdz"] == ["world.usdz"]
    assert files["gltf"] == ["collision.glb", "mesh.glb", "splats.glb"]


def test_a_network_trains_on_worlds(worlds, tmp_path):
    losses = example("train_on_worlds").main(worlds, "true", FileCache(tmp_path))
    assert len(losses) == 8  # two epochs of 12 frames, two workers with batches of 4 and 2
    assert losses[-1] < losses[0]


def test_sensors_fly_through_a_world(worlds, tmp_path):
    points = example("fly_a_sensor").main(worlds, tmp_path)
    assert points == len(PlyData.read(tmp_path / "lidar.ply")["vertex"]) > 1000
    assert np.asarray(Image.open(tmp_path / "fisheye_01_color.jpg")).std() > 10
    assert (np.asarray(Image.open(tmp_path / "pinhole_00_range.png")) > 0).mean() > 0.2


def test_a_model_of_ones_own_in_a_batch(tmp_path):
    module = example("custom_model")
    clip = load_model("custom_model:load").generate(str(EXAMPLES / "seeds" / "coffee_table.jpg"), "dolly-in")
    assert len(module.WallModel().reconstruct(clip)) == clip.frames[0, ..., 0].numel()
    made = batch(tmp_path, "custom_model:recipe", ["width=96", "height=64", "artifacts=ply,cameras"])
    assert made[0]["recipe"] == "wall"
    assert made[0]["psnr_db"] > 20


def test_a_stage_and_a_format_of_ones_own_in_a_batch(tmp_path):
    changes = ["model=custom_model:load", "width=96", "height=64", "artifacts=ply,custom_stage:POINTS"]
    (row,) = batch(tmp_path, "custom_stage:recipe", changes)
    assert [stage["stage"] for stage in row["stage_s"]][:4] == ["seed", "video", "gaussians", "keep_near"]
    (points,) = [artifact for artifact in row["artifacts"] if artifact["role"] == "points"]
    stored = np.load(tmp_path / "worlds" / points["key"])
    assert stored["xyz_m"].shape == (row["num_splats"], 3) == stored["rgb"].shape


def test_a_catalog_of_several_paths(tmp_path, capsys):
    settings = Settings(executor="inline", device="cpu", home=tmp_path / "home")
    paths = ("dolly-in", "orbit-left")
    make = example("make_catalog").main
    assert make(str(tmp_path / "worlds"), "parallax", paths, SMALL, settings, 1) == 2
    answers = capsys.readouterr().out
    assert "trajectory_name dolly-in, worlds 1" in answers
    assert "trajectory_name orbit-left, worlds 1" in answers


def batch(folder: Path, recipe: str, fields: list[str]) -> list[dict]:
    """One world by the example of a batch; its rows."""
    from catalogs.query import query

    example("batch_in_process").main(
        out=str(folder / "worlds"),
        recipe=recipe,
        fields=[*fields, "quality_views=1"],
        settings=Settings(executor="inline", device="cpu", home=folder / "home", model_path=str(EXAMPLES)),
        limit=1,
    )
    return query(open_store(folder / "worlds"), "SELECT * FROM worlds").to_pylist()


@pytest.mark.slow  # a Ray cluster starts
def test_a_batch_on_ray_workers(tmp_path):
    settings = Settings(executor="ray", workers=1, device="cpu", home=tmp_path / "home", model_path=str(EXAMPLES))
    fields = ["artifacts=ply", "quality_views=0", "width=96", "height=64"]
    example("batch_on_ray").main(str(tmp_path / "worlds"), "custom_model:recipe", fields, settings, 1)
    assert len(list((tmp_path / "worlds").rglob("gaussians.ply"))) == 1
