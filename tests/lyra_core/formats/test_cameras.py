import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lyra_core.errors import CameraPathError, FormatError
from lyra_core.formats.cameras import (
    read_cameras_parquet,
    read_colmap_text,
    write_cameras_parquet,
    write_colmap_text,
    write_transforms_json,
)
from lyra_core.geometry.camera import intrinsics_from_hfov, project
from lyra_core.geometry.camera_paths import build_camera_path
from lyra_core.values import CameraPath, Gaussians, Part

K = intrinsics_from_hfov(60.0, 480, 832)


@pytest.fixture(params=["orbit-left", "tilt-up", "lyra2/dolly_zoom/right"])
def path(request) -> CameraPath:
    return build_camera_path(
        request.param,
        num_frames=81,
        intrinsics=K,
        image_height=480,
        image_width=832,
        scene_depth_m=3.0,
    )


def same(found: CameraPath, wanted: CameraPath, atol: float = 0.0) -> None:
    torch.testing.assert_close(found.world_to_cam, wanted.world_to_cam, rtol=0, atol=atol)
    torch.testing.assert_close(found.intrinsics, wanted.intrinsics, rtol=0, atol=0)
    assert (found.image_height, found.image_width) == (480, 832)


def test_parquet_is_exact_and_self_describing(path, tmp_path):
    write_cameras_parquet(path, tmp_path / "cameras.parquet", fps=16.0)
    found = read_cameras_parquet(tmp_path / "cameras.parquet")
    same(found, path)
    assert found.name == path.name
    table = pq.read_table(tmp_path / "cameras.parquet")
    assert table.schema.field("frame").type == pa.int32()
    assert table.schema.field("t_s").type == pa.float64()
    assert table["t_s"].to_pylist()[16] == 1.0
    assert table["w2c"].to_pylist()[80] == path.world_to_cam[80].flatten().tolist()
    assert table.schema.metadata[b"image_width"] == b"832"


def test_parquet_of_something_else_is_refused(path, tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"no")
    with pytest.raises(FormatError, match="cannot be read as Parquet"):
        read_cameras_parquet(file)
    with pytest.raises(FormatError, match="missing"):
        read_cameras_parquet(tmp_path / "missing.parquet")
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(FormatError, match="holds no cameras"):
        read_cameras_parquet(file)
    write_cameras_parquet(path, file)
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)
    with pytest.raises(FormatError, match="frames must count 0"):
        read_cameras_parquet(file)
    ragged = table.set_column(2, "w2c", pa.array([[0.0] * 15] * 81))
    pq.write_table(ragged.replace_schema_metadata(table.schema.metadata), file)
    with pytest.raises(FormatError, match="16 numbers"):
        read_cameras_parquet(file)
    with pytest.raises(FormatError, match="positive rate"):
        write_cameras_parquet(path, file, fps=0.0)


def test_transforms_json_converts_back(path, tmp_path):
    names = [f"images/{i}.png" for i in range(81)]
    write_transforms_json(path, tmp_path / "transforms.json", names)
    document = json.loads((tmp_path / "transforms.json").read_text())
    assert [frame["file_path"] for frame in document["frames"]] == names
    opengl = np.array([frame["transform_matrix"] for frame in document["frames"]])
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    back = np.linalg.inv(opengl @ flip)
    np.testing.assert_allclose(back, path.world_to_cam.numpy(), atol=1e-12)
    lens = [{**document, **frame} for frame in document["frames"]]
    for key, row, column in (("fl_x", 0, 0), ("fl_y", 1, 1), ("cx", 0, 2), ("cy", 1, 2)):
        assert [item[key] for item in lens] == path.intrinsics[:, row, column].tolist()
    assert ("fl_x" in document) == (path.name != "lyra2/dolly_zoom/right")
    assert (document["w"], document["h"]) == (832, 480)


def test_transforms_json_says_where_frames_are_that_are_no_files(path, tmp_path):
    write_transforms_json(path[:3], tmp_path / "t.json", video_file="video.mp4")
    document = json.loads((tmp_path / "t.json").read_text())
    assert document["video_path"] == "video.mp4"
    assert [frame["file_path"] for frame in document["frames"]] == [f"images/frame_0000{i}.jpg" for i in range(3)]
    assert "-i video.mp4 -start_number 0" in document["extract_frames"]
    assert "images/frame_%05d.jpg" in document["extract_frames"]
    with pytest.raises(CameraPathError, match="3 cameras need 3 image names, found 1"):
        write_transforms_json(path[:3], tmp_path / "t.json", depth_paths=["a.png"])


def test_an_opengl_camera_looks_along_its_negative_z(tmp_path):
    still = CameraPath(world_to_cam=torch.eye(4)[None], intrinsics=K[None], image_height=480, image_width=832)
    write_transforms_json(still, tmp_path / "t.json")
    frame = json.loads((tmp_path / "t.json").read_text())["frames"][0]
    assert frame["file_path"] == "images/frame_00000.jpg"
    matrix = np.array(frame["transform_matrix"])
    np.testing.assert_array_equal(-matrix[:3, 2], [0, 0, 1])  # forward is the world's z
    np.testing.assert_array_equal(matrix[:3, 1], [0, -1, 0])  # up is the world's -y


def test_colmap_round_trip(path, tmp_path):
    write_colmap_text(path, tmp_path / "sparse")
    same(read_colmap_text(tmp_path / "sparse"), path, atol=1e-12)
    assert (tmp_path / "sparse" / "points3D.txt").read_text().startswith("#")


def test_colmap_pose_is_world_to_camera_with_w_first(tmp_path):
    path = build_camera_path(
        "pan-right",
        num_frames=81,
        intrinsics=K,
        image_height=480,
        image_width=832,
        scene_depth_m=3.0,
    )
    write_colmap_text(path, tmp_path)
    lines = [x for x in (tmp_path / "images.txt").read_text().splitlines() if not x.startswith("#")]
    assert len(lines) == 162
    last = lines[160].split()
    assert last[0] == "81"
    assert last[9] == "frame_00080.jpg"
    qw, qx, qy, qz = map(float, last[1:5])
    # A camera turned right by 25 degrees: the world turns left in it, -25 degrees about y.
    assert [qw, qx, qy, qz] == pytest.approx([np.cos(np.radians(12.5)), 0, -np.sin(np.radians(12.5)), 0])
    camera = [x for x in (tmp_path / "cameras.txt").read_text().splitlines() if not x.startswith("#")]
    assert len(camera) == 1
    assert camera[0].split()[:4] == ["1", "PINHOLE", "832", "480"]


def test_colmap_points_sample_the_gaussians(path, tmp_path):
    generator = torch.Generator().manual_seed(0)
    gaussians = Gaussians(
        means=torch.randn(1000, 3, generator=generator),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(1000, 1),
        scales=torch.ones(1000, 3),
        opacities=torch.ones(1000),
        sh=torch.zeros(1000, 1, 3),
    )
    gaussians.sh[0, 0] = torch.tensor([0.5, -0.5, 0.0]) / 0.28209479177387814
    write_colmap_text(path, tmp_path, gaussians, max_points=100)
    points = [x.split() for x in (tmp_path / "points3D.txt").read_text().splitlines()[1:]]
    assert len(points) == 100
    assert [float(v) for v in points[0][1:4]] == pytest.approx(gaussians.means[0].tolist())
    assert points[0][4:7] == ["255", "0", "128"]
    assert [float(v) for v in points[99][1:4]] == pytest.approx(gaussians.means[990].tolist())


def test_colmap_points_leave_out_backing_and_dome(path, tmp_path):
    part = torch.tensor([2, 0, 1, 0], dtype=torch.uint8)
    gaussians = Gaussians(
        means=torch.arange(12.0).reshape(4, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(4, 1),
        scales=torch.ones(4, 3),
        opacities=torch.ones(4),
        sh=torch.zeros(4, 1, 3),
        part=part,
    )
    write_colmap_text(path, tmp_path, gaussians)
    points = [x.split() for x in (tmp_path / "points3D.txt").read_text().splitlines()[1:]]
    assert [[float(v) for v in point[1:4]] for point in points] == [[3, 4, 5], [9, 10, 11]]
    write_colmap_text(path, tmp_path, gaussians.of_parts(Part.DOME))
    assert len((tmp_path / "points3D.txt").read_text().splitlines()) == 1


def test_pixel_centers_agree_with_colmap(path):
    # COLMAP: the upper left pixel's centre is (0.5, 0.5); a centred principal point is (w/2, h/2).
    pixel, _ = project(torch.tensor([0.0, 0.0, 2.0]), torch.eye(4), K)
    assert pixel.tolist() == [416.0, 240.0]


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        ("1 OPENCV 832 480 1 1 1 1 0 0 0 0", "", "must be PINHOLE, found OPENCV"),
        ("1 PINHOLE 832 480 700 700 416", "", "must be PINHOLE"),
        ("1 PINHOLE 832", "", "malformed"),
        ("1 PINHOLE 832 480 700 700 416 240", "1 1 0 0 0 0 0 0 2 a.png\n\n", "malformed"),
        ("1 PINHOLE 832 480 700 700 416 240", "1 1 0 0 zero 0 0 0 1 a.png\n\n", "malformed"),
        ("1 PINHOLE 832 480 700 700 416 240", "", "images of one size"),
    ],
)
def test_malformed_colmap_models(tmp_path, cameras, images, message):
    (tmp_path / "cameras.txt").write_text(cameras + "\n")
    (tmp_path / "images.txt").write_text(images)
    with pytest.raises(FormatError, match=message):
        read_colmap_text(tmp_path)


def test_colmap_files_may_be_missing_and_simple_pinholes_are_read(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_colmap_text(tmp_path)
    (tmp_path / "cameras.txt").write_text("# c\n7 SIMPLE_PINHOLE 832 480 700 416 240\n")
    (tmp_path / "images.txt").write_text("2 1 0 0 0 0 0 1 7 b c.png\n\n1 1 0 0 0 0 0 0 7 a.png\n3 4 5\n")
    found = read_colmap_text(tmp_path)
    assert found.world_to_cam[:, 2, 3].tolist() == [0.0, 1.0]
    assert found.intrinsics[0, 1, 1] == 700


def test_image_names_must_match(path, tmp_path):
    with pytest.raises(CameraPathError, match="81 image names, found 1"):
        write_transforms_json(path, tmp_path / "t.json", ["a.png"])
    with pytest.raises(CameraPathError, match="81 image names, found 1"):
        write_colmap_text(path, tmp_path, image_names=["a.png"])
