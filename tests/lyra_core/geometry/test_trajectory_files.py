import itertools
import json
import math

import numpy as np
import pytest
import torch

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import intrinsics_from_hfov, project
from lyra_core.geometry.camera_paths import build_camera_path
from lyra_core.geometry.trajectory_files import load_trajectory, relative_to_first, save_trajectory

K = intrinsics_from_hfov(55.0, 480, 832)
SEED = {"intrinsics": K, "image_height": 480, "image_width": 832}


@pytest.fixture
def path():
    return build_camera_path("orbit-left", num_frames=161, scene_depth_m=3.0, **SEED)


def arrays(frames=81, **changes):
    w2c = np.tile(np.eye(4), (frames, 1, 1))
    w2c[:, 2, 3] = -0.01 * np.arange(frames)
    found = {
        "w2c": w2c,
        "intrinsics": np.tile(K.numpy(), (frames, 1, 1)),
        "image_height": 480,
        "image_width": 832,
    }
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}


def test_round_trip_is_exact(path, tmp_path):
    save_trajectory(path, tmp_path / "orbit.npz")
    again = load_trajectory(tmp_path / "orbit.npz")
    assert torch.equal(again.world_to_cam, path.world_to_cam)
    assert torch.equal(again.intrinsics, path.intrinsics)
    assert (again.image_height, again.image_width, again.name) == (480, 832, "orbit")
    assert torch.equal(load_trajectory((tmp_path / "orbit.npz").read_bytes()).world_to_cam, path.world_to_cam)


def test_a_longer_file_is_cut_and_resized(path, tmp_path):
    save_trajectory(path, tmp_path / "orbit.npz")
    short = load_trajectory(tmp_path / "orbit.npz", num_frames=81, image_height=240, image_width=416)
    assert torch.equal(short.world_to_cam, path.world_to_cam[:81])
    assert torch.allclose(short.intrinsics[:, 0], path.intrinsics[:81, 0] / 2)
    with pytest.raises(CameraPathError, match="has 161 frames, 241"):
        load_trajectory(tmp_path / "orbit.npz", num_frames=241)


def test_the_first_camera_becomes_the_world(path, tmp_path):
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor([5.0, -2.0, 1.0])
    np.savez(tmp_path / "far.npz", **arrays(161, w2c=(path.world_to_cam @ shift).numpy()))
    loaded = load_trajectory(tmp_path / "far.npz")
    assert torch.equal(loaded.world_to_cam[0], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(loaded.world_to_cam, path.world_to_cam, rtol=0, atol=1e-12)
    assert relative_to_first(path) is path


sheared = np.tile(np.eye(4), (81, 1, 1))
sheared[40, 0, 1] = 0.2
mirrored = np.tile(np.eye(4), (81, 1, 1))
mirrored[:, 0, 0] = -1
with_nan = np.tile(np.eye(4), (81, 1, 1))
with_nan[7, 1, 3] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w2c": with_nan}, r"w2c of frames \[7\] is NaN"),
        ({"w2c": sheared}, "rigid.*frame 40"),
        ({"w2c": mirrored}, r"rigid.*determinant \+1"),
        ({"w2c": np.eye(4)}, r"w2c must be \[t 4 4\], found \[4, 4\]"),
        ({"w2c": np.zeros((0, 4, 4))}, r"w2c must be \[t 4 4\]"),
        ({"intrinsics": np.tile(np.eye(3), (80, 1, 1))}, r"intrinsics must be \[81 3 3\]"),
        ({"intrinsics": np.tile(np.diag([-1.0, 1, 1]), (81, 1, 1))}, "positive focal"),
        ({"image_height": None}, "lacks image_height"),
        ({"image_height": np.array(["x"])}, "must hold numbers"),
        ({"image_width": 0}, "size must be positive"),
        ({"w2c": np.array([{"a": 1}], dtype=object)}, "pickled objects are refused"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / "bad.npz", **arrays(**changes))
    with pytest.raises(CameraPathError, match=message):
        load_trajectory(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 torn", "not a plain .npz"),
        (b"\x93NUMPY", "neither .npz nor valid JSON"),
        (b"[1, 2", "neither .npz nor valid JSON"),
        (b"[" * 100_000, "neither .npz nor valid JSON"),
        (b'[{"position": [NaN, 0, 0]}]', "NaN"),
        (b"{}", "list of 1 to 1000 key poses"),
        (b"[]", "list of 1 to 1000 key poses"),
        (b"[3]", "key pose 0 must be an object"),
        (b'[{"position": [0, 0]}]', "position must be 3 numbers"),
        (b'[{"position": [0, 0, true]}]', "position must be 3 numbers"),
        (b'[{"position": [0, 0, 1e9]}]', "below 1e6"),
        (b'[{"position": [0, 0, 0], "fov": 3}]', "found \\['fov', 'position'\\]"),
        (b'[{"position": [0, 0, 0], "look_at": [0, 0, 0]}]', "own position"),
        (b'[{"position": [0, 0, 0], "quaternion": [0, 0, 0, 0]}]', "norm 1"),
        (b'[{"position": [0, 0, 0], "hfov": 400}]', "between 0 and 180"),
        (b'[{"position": [0, 0, 0], "hfov": "wide"}]', "number of degrees"),
        (
            b'[{"position": [0, 0, 0], "hfov": 50}, {"position": [0, 0, 1]}]',
            "every key pose or in none",
        ),
        (
            b'[{"position": [0, 0, 0], "look_at": [0, 0, 1], "quaternion": [1, 0, 0, 0]}]',
            "keep one",
        ),
    ],
)
def test_bad_bytes_are_refused(data, message):
    with pytest.raises(CameraPathError, match=message):
        load_trajectory(data, num_frames=81, **SEED)


def test_npz_counts_must_be_whole_chunks(tmp_path):
    np.savez(tmp_path / "odd.npz", **arrays(100))
    with pytest.raises(CameraPathError, match="1 \\+ 80 k"):
        load_trajectory(tmp_path / "odd.npz")
    assert len(load_trajectory(tmp_path / "odd.npz", any_count=True)) == 100
    assert len(load_trajectory(tmp_path / "odd.npz", num_frames=81)) == 81


def test_one_set_of_intrinsics_serves_all_frames(tmp_path):
    np.savez(tmp_path / "one.npz", **arrays(intrinsics=K.numpy()))
    assert load_trajectory(tmp_path / "one.npz").intrinsics.shape == (81, 3, 3)


KEYS = [
    {"position": [0, 0, 0], "look_at": [0, 0, 4]},
    {"position": [1, -0.2, 0.5], "look_at": [0, 0, 4]},
    {"position": [1.5, 0, 2.0], "look_at": [0, 0, 4]},
    {"position": [0, 0.3, 2.5], "quaternion": [1, 0, 0, 0]},
]


def test_key_poses_are_passed_smoothly_at_constant_speed(tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({"key_poses": KEYS}))
    path = load_trajectory(tmp_path / "keys.json", num_frames=241, **SEED)
    assert len(path) == 241
    assert torch.equal(path.world_to_cam[0], torch.eye(4, dtype=torch.float64))
    for key in KEYS:
        position = torch.tensor(key["position"], dtype=torch.float64)
        nearest = (path.centers_m - position).norm(dim=1)
        assert nearest.min() < 0.02
        if "look_at" in key:
            pixel, _ = project(torch.tensor(key["look_at"]).double(), path.world_to_cam[int(nearest.argmin())], K)
            assert (pixel - torch.tensor([416.0, 240.0])).abs().max() < 12
    torch.testing.assert_close(path.centers_m[-1], torch.tensor([0, 0.3, 2.5], dtype=torch.float64))
    turned = (path.world_to_cam[1:, :3, :3] @ path.world_to_cam[:-1, :3, :3].mT).diagonal(dim1=1, dim2=2).sum(1)
    angle = torch.acos(((turned - 1) / 2).clamp(-1, 1))
    gaps = torch.tensor(KEYS[0]["position"], dtype=torch.float64)
    radius = np.mean([math.dist(a["position"], b["position"]) for a, b in itertools.pairwise(KEYS)])
    speed = (path.centers_m.diff(dim=0).norm(dim=1) ** 2 + (radius * angle) ** 2).sqrt()
    assert gaps.abs().max() == 0
    assert speed.std() / speed.mean() < 0.02
    assert path.centers_m.diff(n=2, dim=0).norm(dim=1).max() < 0.35 * speed.mean()


def test_turning_on_the_spot_takes_its_time():
    keys = [{"position": [0, 0, 0]}, {"position": [0, 0, 0], "quaternion": [0.7071, 0, 0.7071, 0]}]
    path = load_trajectory(json.dumps(keys).encode(), num_frames=81, **SEED)
    forward = path.cam_to_world[:, :3, 2]
    assert path.centers_m.abs().max() < 1e-12
    heading = torch.atan2(forward[:, 0], forward[:, 2])
    torch.testing.assert_close(heading, torch.linspace(0, math.pi / 2, 81, dtype=torch.float64), rtol=0, atol=1e-4)


def test_field_of_view_changes_smoothly():
    keys = [{"position": [0, 0, z], "hfov": hfov} for z, hfov in ((0, 60), (1, 40))]
    path = load_trajectory(json.dumps(keys).encode(), num_frames=81, image_height=480, image_width=832)
    focal = path.intrinsics[:, 0, 0]
    assert (focal.diff() > 0).all()
    assert focal[-1] == pytest.approx(float(intrinsics_from_hfov(40.0, 480, 832)[0, 0]))


def test_a_single_key_pose_is_a_still_camera():
    path = load_trajectory(b'[{"position": [3, 2, 1]}]', num_frames=81, **SEED)
    assert torch.equal(path.world_to_cam, torch.eye(4, dtype=torch.float64).repeat(81, 1, 1))


def test_key_poses_say_what_they_need():
    data = b'[{"position": [0, 0, 0]}]'
    with pytest.raises(CameraPathError, match="num_frames"):
        load_trajectory(data, **SEED)
    with pytest.raises(CameraPathError, match="image_height"):
        load_trajectory(data, num_frames=81)
    with pytest.raises(CameraPathError, match="seed's intrinsics"):
        load_trajectory(data, num_frames=81, image_height=480, image_width=832)
