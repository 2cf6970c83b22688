"""One test for each sentence of docs/conventions.md, by number."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from lyra_core.errors import CameraPathError, FrameError
from lyra_core.formats.cameras import write_cameras_parquet, write_colmap_text, write_transforms_json
from lyra_core.formats.image import open_image
from lyra_core.formats.mesh import Mesh, write_glb, write_obj
from lyra_core.gaussians.extent import extent
from lyra_core.geometry.camera import intrinsics_from_hfov, look_at, project, rotation_about_axis, unproject
from lyra_core.geometry.camera_paths import build_camera_path, measure_scene_depth_m
from lyra_core.geometry.requests import PRESETS, num_chunks
from lyra_core.geometry.rotation import invert_rigid, matrix_to_quat, unit_quat_to_matrix
from lyra_core.geometry.trajectory_files import load_trajectory, save_trajectory
from lyra_core.scene_geometry.floor import Floor
from lyra_core.scene_geometry.ground_frame import GroundFrame
from lyra_core.values import CameraPath, Gaussians, Part, VideoClip

K = intrinsics_from_hfov(60.0, 480, 832)
EYE = torch.eye(4, dtype=torch.float64)


def build(name, num_frames=81):
    return build_camera_path(
        name,
        num_frames=num_frames,
        intrinsics=K,
        image_height=480,
        image_width=832,
        scene_depth_m=2.0,
    )


def one_gaussian(**changes) -> Gaussians:
    values = {
        "means": torch.zeros(1, 3),
        "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "scales": torch.tensor([[0.1, 0.2, 0.3]]),
        "opacities": torch.tensor([0.25]),
        "sh": torch.zeros(1, 1, 3),
    }
    return Gaussians(**{**values, **changes})


def test_1_opencv_axes():
    center = torch.tensor([416.0, 240.0], dtype=torch.float64)
    right, _ = project(torch.tensor([1.0, 0.0, 5.0]), EYE, K)
    down, depth = project(torch.tensor([0.0, 1.0, 5.0]), EYE, K)
    assert right[0] > center[0]
    assert right[1] == center[1]
    assert down[1] > center[1]
    assert down[0] == center[0]
    assert depth == 5


def test_2_poses_take_world_points_to_camera_points():
    path = build("truck-right")
    center = torch.cat([path.centers_m[-1], torch.ones(1)])
    assert (path.world_to_cam[-1] @ center)[:3].abs().max() < 1e-12
    torch.testing.assert_close(path.cam_to_world @ path.world_to_cam, EYE.expand(81, 4, 4))
    torch.testing.assert_close(path.cam_to_world, invert_rigid(path.world_to_cam))
    with pytest.raises(CameraPathError, match="rigid"):
        CameraPath(world_to_cam=2 * EYE[None], intrinsics=K[None], image_height=480, image_width=832)


def test_3_lengths_are_metres():
    depth = torch.full((480, 832), 3.0)
    assert measure_scene_depth_m(depth) == 3.0
    points = unproject(depth, EYE, K)
    assert points[..., 2].unique().tolist() == [3.0]
    # The angle under which 1 m appears at 3 m.
    ends, _ = project(torch.tensor([[0.0, 0.0, 3.0], [1.0, 0.0, 3.0]]), EYE, K)
    assert float(ends[1, 0] - ends[0, 0]) == pytest.approx(float(K[0, 0]) / 3)


def test_4_quaternions_are_wxyz():
    turn = rotation_about_axis((1.0, 0.0, 0.0), torch.tensor(torch.pi / 2))
    half = 0.5**0.5
    assert matrix_to_quat(turn).tolist() == pytest.approx([half, half, 0, 0])
    assert torch.equal(unit_quat_to_matrix(torch.tensor([1.0, 0, 0, 0])), EYE[:3, :3])


def test_5_pixel_centers_at_half():
    pixels, _ = project(unproject(torch.ones(480, 832), EYE, K), EYE, K)
    assert pixels[0, 0].tolist() == pytest.approx([0.5, 0.5])
    assert pixels[479, 831].tolist() == pytest.approx([831.5, 479.5])
    assert K[:2, 2].tolist() == [416.0, 240.0]


def test_6_depth_is_along_z():
    pose = look_at(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 9.0]))
    _, depth = project(torch.tensor([5.0, 2.0, 3.0]), pose, K)
    assert depth == pytest.approx(3.0)
    assert measure_scene_depth_m(torch.tensor([[0.0, 0.0], [0.0, 7.0]])) == 7.0


def test_7_logarithms_only_inside_files(tmp_path):
    gaussians = one_gaussian()
    gaussians.save_ply(tmp_path / "a.ply")
    stored = PlyData.read(tmp_path / "a.ply")["vertex"]
    assert float(stored["scale_0"][0]) == pytest.approx(float(torch.tensor(0.1).log()))
    assert float(stored["opacity"][0]) == pytest.approx(float(torch.logit(torch.tensor(0.25))))
    again = Gaussians.load_ply(tmp_path / "a.ply")
    torch.testing.assert_close(again.scales, gaussians.scales)
    torch.testing.assert_close(again.opacities, gaussians.opacities)


def test_8_colour_is_srgb(tmp_path):
    grey = torch.full((32, 48, 3), 119, dtype=torch.uint8)
    assert torch.equal(open_image(grey, 48, 32).image, grey)  # no gamma is applied
    red = one_gaussian(sh=torch.tensor([[[0.5, -0.5, 0.0]]]) / 0.28209479177387814)
    write_colmap_text(build("dolly-in"), tmp_path, red)
    assert (tmp_path / "points3D.txt").read_text().split("\n")[1].split()[4:7] == [
        "255",
        "0",
        "128",
    ]


def test_9_frame_0_is_the_seed(tmp_path):
    from lyra_core.formats.cameras import read_cameras_parquet, write_cameras_parquet

    path = build("dolly-in")
    write_cameras_parquet(path, tmp_path / "c.parquet")
    assert torch.equal(read_cameras_parquet(tmp_path / "c.parquet").world_to_cam[0], EYE)
    frames = torch.zeros(80, 480, 832, 3, dtype=torch.uint8)
    with pytest.raises(FrameError, match="one camera a frame"):
        VideoClip(frames=frames, cameras=path)


@pytest.mark.parametrize("name", PRESETS)
def test_10_the_first_camera_is_the_identity(name):
    torch.testing.assert_close(build(name).world_to_cam[0], EYE, rtol=0, atol=1e-15)
    away = b'[{"position": [4, 5, 6], "look_at": [0, 0, 0]}, {"position": [0, 1, 2]}]'
    path = load_trajectory(away, num_frames=81, intrinsics=K, image_height=480, image_width=832)
    assert torch.equal(path.world_to_cam[0], EYE)


def test_11_quats_take_own_axes_to_the_worlds():
    quarter = matrix_to_quat(rotation_about_axis((0.0, 0.0, 1.0), torch.tensor(torch.pi / 2)))
    gaussian = one_gaussian(quats=quarter[None].float())
    long_axis = unit_quat_to_matrix(gaussian.quats)[0] @ torch.tensor([1.0, 0, 0], dtype=torch.float64)
    assert long_axis.tolist() == pytest.approx([0, 1, 0], abs=1e-7)


def test_12_whole_chunks():
    assert [num_chunks(n) for n in (81, 161)] == [1, 2]
    with pytest.raises(CameraPathError, match="1 \\+ 80 k"):
        num_chunks(80)


def test_13_camera_files_are_metres_in_the_first_cameras_frame(tmp_path):
    path = build("orbit-left")
    turned = torch.eye(4, dtype=torch.float64)
    turned[:3, :3] = rotation_about_axis((0.6, 0.0, 0.8), torch.tensor(2.0))
    turned[:3, 3] = torch.tensor([50.0, -7.0, 3.0])
    elsewhere = CameraPath(
        world_to_cam=path.world_to_cam @ turned, intrinsics=path.intrinsics, image_height=480, image_width=832
    )
    write_transforms_json(elsewhere, tmp_path / "transforms.json")
    found = load_trajectory(tmp_path / "transforms.json")
    torch.testing.assert_close(found.world_to_cam, path.world_to_cam, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["trajectory.npz", "cameras.parquet", "transforms.json"])
def test_14_our_own_files_come_back_camera_for_frame(name, tmp_path):
    path = build("walk-forward-and-look-back", 161)
    write = {".npz": save_trajectory, ".parquet": write_cameras_parquet, ".json": write_transforms_json}
    write[Path(name).suffix](path, tmp_path / name)
    found = load_trajectory(tmp_path / name)
    torch.testing.assert_close(found.world_to_cam, path.world_to_cam, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.intrinsics, path.intrinsics, rtol=0, atol=1e-9)
    assert (found.image_height, found.image_width) == (480, 832)
    assert torch.equal(load_trajectory(tmp_path / name, num_frames=81).world_to_cam, found.world_to_cam[:81])
    with pytest.raises(CameraPathError, match="has 161 frames, 241 are asked for; ask for 161 at most"):
        load_trajectory(tmp_path / name, num_frames=241)


def test_15_nerfstudio_is_opengl_in_the_order_of_names(tmp_path):
    frames = []
    for i in range(81):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, 3] = torch.tensor([0.0, 0.01 * i, -0.02 * i])  # up and forward of an OpenGL camera
        frames.append({"file_path": f"images/frame_{i}.png", "transform_matrix": pose.tolist()})
    document = {"camera_angle_x": math.radians(60), "frames": frames[::-1]}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    found = load_trajectory(tmp_path / "transforms.json", image_height=480, image_width=832)
    assert found.centers_m[-1].tolist() == pytest.approx([0.0, -0.8, 1.6])
    torch.testing.assert_close(found.intrinsics[0], K)


def test_16_a_camera_path_is_spread_over_the_video(tmp_path):
    poses = [torch.eye(4, dtype=torch.float64) for _ in range(3)]
    poses[1][2, 3], poses[2][2, 3] = -1.0, -3.0
    cameras = [{"camera_to_world": pose.flatten().tolist(), "fov": 50.0, "aspect": 1.0} for pose in poses]
    document = {"camera_path": cameras, "fps": 24, "seconds": 4, "render_height": 1080, "render_width": 1920}
    (tmp_path / "camera_path.json").write_text(json.dumps(document))
    found = load_trajectory(tmp_path / "camera_path.json", num_frames=161, image_height=480, image_width=832)
    assert found.centers_m[[0, 40, 80, 120, 160], 2].tolist() == pytest.approx([0.0, 0.5, 1.0, 2.0, 3.0])
    focal = 240 / math.tan(math.radians(25))
    assert found.intrinsics[7, [0, 1], [0, 1]].tolist() == pytest.approx([focal, focal])


def test_17_parts_are_numbered_and_the_first_bounds_the_world(tmp_path):
    assert (Part.KEYFRAME, Part.BACKING, Part.DOME) == (0, 1, 2)
    three = Gaussians.concatenate(
        [one_gaussian(means=torch.full((1, 3), 10.0**part)).marked(Part(part)) for part in range(3)]
    )
    three.save_ply(tmp_path / "a.ply")
    assert PlyData.read(tmp_path / "a.ply")["vertex"]["part"].tolist() == [0, 1, 2]
    assert extent(three).greatest == extent(three).p99 == (1.0, 1.0, 1.0)
    write_colmap_text(build("dolly-in"), tmp_path, three)
    points = (tmp_path / "points3D.txt").read_text().splitlines()[1:]
    assert [[float(v) for v in line.split()[1:4]] for line in points] == [[1.0, 1.0, 1.0]]


def test_18_the_ground_frame_has_z_up_below_the_first_camera():
    floor = Floor(up=(0.0, -1.0, 0.0), camera_height=1.5, inliers=0.5, tilt_deg=0.0, spread_deg=0.0, rmse=0.0)
    points = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 1.5, 2.0]])
    on_floor = [[0, 0, 3.0], [2, 0, 3.0], [0, 0, 0], [0, 4, 0]]
    np.testing.assert_allclose(GroundFrame.on(floor, 2.0).to_ground(points), on_floor, atol=1e-12)
    np.testing.assert_allclose(GroundFrame.on(None, 1.0).to_ground(points[:2]), [[0, 0, 0], [1, 0, 0]], atol=1e-12)


def test_19_files_for_simulators_have_their_own_axes(tmp_path):
    corners = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])  # right, forward, up
    mesh = Mesh(vertices=corners, faces=np.array([[0, 1, 2]]))
    write_obj(mesh, tmp_path / "a.obj")
    assert (tmp_path / "a.obj").read_text().splitlines()[1:4] == ["v 1 0 0", "v 0 1 0", "v 0 0 1"]
    write_glb(mesh, tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    start = data.index(b"BIN\0") + 4
    found = np.frombuffer(data, "<f4", 9, start).reshape(3, 3)
    assert found.tolist() == [[1, 0, 0], [0, 0, -1], [0, 1, 0]]


def test_every_sentence_has_its_test():
    text = (Path(__file__).resolve().parents[3] / "docs" / "conventions.md").read_text()
    sentences = {int(n) for n in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}
    tests = {int(name.split("_")[1]) for name in globals() if re.match(r"test_\d+_", name)}
    assert sentences == tests == set(range(1, 20))
