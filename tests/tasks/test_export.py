"""lyra export from a stored world: layout, resumption, errors; read back by pycolmap where it is installed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catalogs.query import query
from flows.cli import _exit_code
from lyra_core.formats.cameras import OPENCV_TO_OPENGL, read_cameras_parquet, read_colmap_text
from lyra_core.formats.clip import read_video
from lyra_core.formats.points import surface_points
from lyra_core.formats.store import open_store
from lyra_core.seed_digests import SeedDigestCache
from lyra_core.sensors.cast import Caster
from lyra_core.sensors.rays import pinhole_rays
from lyra_core.values import Gaussians
from tasks.manifest import read_seeds
from tasks.plan import Request, make_plan
from tasks.recipe import Recipe
from tasks.worker import Worker
from tasks.worker_config import WorkerConfig

MODELS = Path(__file__).resolve().parents[1] / "models"


def make_world(folder: Path, artifacts: tuple[str, ...]) -> dict:
    """One world of tests/models/yard_model.py in `folder/out`; its row."""
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(folder / "a.png")
    recipe = Recipe(
        name="yard", description="for tests", model="yard_model:load", width=64, height=48,
        artifacts=artifacts, quality_views=0,
    )  # fmt: skip
    store = open_store(folder / "out", fsync=False)
    digests = SeedDigestCache(folder / "digests.sqlite")
    plan = make_plan(
        read_seeds([str(folder / "a.png")]), store, Request(recipe=recipe, run_id="r"), digests, folder / "p"
    )
    worker = Worker(WorkerConfig(recipe=recipe, out_url=store.root, run_id="r", scratch=str(folder / "scratch")))
    for spec in plan.specs():
        assert worker.make(spec) is None
        assert worker.finish(spec.world_id).kind == "created"
    worker.close()
    (row,) = query(store, "SELECT * FROM worlds").to_pylist()
    return row


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One stored world of tests/models/yard_model.py: store folder, cameras, Gaussians, frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MODELS))
        folder = tmp_path_factory.mktemp("stored")
        row = make_world(folder, ("ply", "cameras", "lossless"))
    files = {a["role"]: folder / "out" / a["key"] for a in row["artifacts"]}
    return {
        "uri": str(folder / "out"),
        "id": row["world_id"],
        "cameras": read_cameras_parquet(files["cameras"]),
        "gaussians": Gaussians.load_ply(files["ply"]),
        "frames": read_video(files["lossless"]),
    }


@pytest.fixture(scope="module")
def exported(stored, tmp_path_factory):
    to = tmp_path_factory.mktemp("exported")
    assert _exit_code(["export", stored["uri"], "--format", "colmap,nerfstudio", "--to", str(to)]) == 0
    return to / stored["id"]


def test_colmap_folder(stored, exported):
    model = exported / "colmap" / "sparse" / "0"
    assert {file.name for file in model.iterdir()} == {
        f"{name}.{ending}" for name in ("cameras", "images", "points3D") for ending in ("bin", "txt")
    }
    assert torch.allclose(read_colmap_text(model).world_to_cam, stored["cameras"].world_to_cam, atol=1e-12)
    data = (model / "points3D.bin").read_bytes()
    means, colors = surface_points(stored["gaussians"])
    assert struct.unpack_from("<Q", data) == (len(means),)
    first = struct.unpack_from("<Q3d3BdQ", data, 8)
    assert first == (1, *means[0].tolist(), *colors[0].tolist(), 0.0, 0)
    assert len(data) == 8 + 51 * len(means)


def test_pictures_are_the_frames_of_the_video(stored, exported):
    for form in ("colmap", "nerfstudio"):
        files = sorted((exported / form / "images").iterdir())
        assert [file.name for file in files] == [f"frame_{i:05d}.jpg" for i in range(len(stored["cameras"]))]
        last = np.asarray(Image.open(files[-1])).astype(float)
        assert np.abs(last - stored["frames"][-1].numpy()).mean() < 4


def test_pycolmap_opens_both_models(stored, exported):
    pycolmap = pytest.importorskip("pycolmap")
    model = exported / "colmap" / "sparse" / "0"
    for ending in ("txt", "bin"):
        only = model.parent / ending
        only.mkdir()
        for file in model.glob(f"*.{ending}"):
            (only / file.name).write_bytes(file.read_bytes())
        found = pycolmap.Reconstruction(str(only))
        assert len(found.points3D) == len(surface_points(stored["gaussians"])[0])
        poses = {image.name: image.cam_from_world().matrix() for image in found.images.values()}
        for i, pose in enumerate(stored["cameras"].world_to_cam.numpy()):
            assert np.abs(poses[f"frame_{i:05d}.jpg"] - pose[:3]).max() < 1e-12


def test_nerfstudio_folder_by_its_parser_s_rules(stored, exported):
    # nerfstudio_dataparser.py: frames sorted by file_path, pictures opened for their size, poses camera to world in
    # OpenGL axes, orientation_override before the method, points from ply_file_path.
    folder = exported / "nerfstudio"
    meta = json.loads((folder / "transforms.json").read_text())
    assert meta["orientation_override"] == "none"
    frames = sorted(meta["frames"], key=lambda frame: frame["file_path"])
    cameras = stored["cameras"]
    for i, frame in enumerate(frames):
        with Image.open(folder / frame["file_path"]) as picture:
            assert picture.size == (meta["w"], meta["h"]) == (cameras.image_width, cameras.image_height)
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
        assert torch.allclose(pose, cameras.cam_to_world[i] @ OPENCV_TO_OPENGL)
    # depth_file_path: 16 bits, times 1e-3
    depth = np.asarray(Image.open(folder / frames[0]["depth_file_path"]))
    assert depth.dtype == np.uint16
    rays = pinhole_rays(cameras.intrinsics[0], meta["h"], meta["w"])
    wanted = Caster(stored["gaussians"]).capture(rays, cameras.world_to_cam[0]).depth.numpy()
    assert (depth > 0).mean() > 0.3
    assert np.abs(depth / 1000 - wanted)[wanted < 65].max() <= 0.00051
    plyfile = pytest.importorskip("plyfile")
    vertex = plyfile.PlyData.read(folder / meta["ply_file_path"])["vertex"]
    means, colors = surface_points(stored["gaussians"])
    assert np.array_equal(np.stack([vertex[a] for a in "xyz"], 1), means.astype(np.float32))
    assert np.array_equal(np.stack([vertex[c] for c in ("red", "green", "blue")], 1), colors)


def test_no_dome_and_no_backing_among_the_points(stored):
    assert stored["gaussians"].part is not None
    means, _ = surface_points(stored["gaussians"])
    assert len(means) == int((stored["gaussians"].part == 0).sum()) < len(stored["gaussians"])


def test_what_exists_whole_is_skipped_and_what_is_missing_is_written(stored, tmp_path, capsys):
    command = ["export", stored["uri"], "--format", "nerfstudio", "--to", str(tmp_path), "--json"]
    assert _exit_code(command) == 0
    assert json.loads(capsys.readouterr().out) == {"worlds": 1, "written": 1, "existed": 0, "problems": []}
    mark = tmp_path / stored["id"] / "nerfstudio" / "mark"
    mark.touch()
    command[3] = "nerfstudio,colmap"
    assert _exit_code(command) == 0
    assert json.loads(capsys.readouterr().out) == {"worlds": 1, "written": 1, "existed": 1, "problems": []}
    assert mark.exists()
    assert sorted(path.name for path in (tmp_path / stored["id"]).iterdir()) == ["colmap", "nerfstudio"]


def test_where_chooses_worlds(stored, tmp_path, capsys):
    arguments = ["export", stored["uri"], "--format", "colmap", "--to", str(tmp_path), "--where", "num_splats < 0"]
    assert _exit_code([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["worlds"] == 0
    assert list(tmp_path.iterdir()) == []


def test_errors_say_what_was_wanted(stored, tmp_path, capsys, model_path):
    assert _exit_code(["export", stored["uri"], "--format", "fbx", "--to", str(tmp_path)]) == 2
    assert "colmap, nerfstudio" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert _exit_code(["export", stored["uri"], "--format", "colmap", "--to", str(tmp_path / "file")]) == 1
    assert "wanted a folder" in " ".join(capsys.readouterr().err.split())
    row = make_world(tmp_path, ("ply",))
    arguments = ["export", str(tmp_path / "out"), "--format", "colmap", "--to", str(tmp_path / "to"), "--json"]
    assert _exit_code(arguments) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["world_id"] == row["world_id"]
    assert "wanted its artifacts ply, cameras and video" in problem["problem"]
