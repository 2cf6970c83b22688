import pytest
import torch

from lyra_core.errors import CameraPathError, DepthError
from lyra_core.geometry.camera import intrinsics_from_hfov, project
from lyra_core.geometry.camera_paths import (
    _CLOSED,
    _STEADY,
    DOLLY_DEPTHS,
    ZOOM_DEPTHS,
    build_camera_path,
    measure_scene_depth_m,
)
from lyra_core.geometry.requests import PRESETS, is_steady

K = intrinsics_from_hfov(55.0, 480, 832)


def build(name, num_frames=81, depth=4.0, **kwargs):
    return build_camera_path(
        name,
        num_frames=num_frames,
        intrinsics=K,
        image_height=480,
        image_width=832,
        scene_depth_m=depth,
        **kwargs,
    )


def test_every_preset_of_the_table_is_built():
    assert set(_STEADY) | set(_CLOSED) == set(PRESETS)
    assert set(_STEADY) == {name for name in PRESETS if is_steady(name)}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_frames", [81, 241])
def test_first_camera_is_the_seed_camera(name, num_frames):
    path = build(name, num_frames)
    assert len(path) == num_frames
    assert path.name == name
    torch.testing.assert_close(path.world_to_cam[0], torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", PRESETS)
def test_steady_poses_do_not_depend_on_the_count(name):
    short, long = build(name, 81), build(name, 241)
    assert torch.equal(short.world_to_cam, long.world_to_cam[:81]) == is_steady(name)


@pytest.mark.parametrize("name", PRESETS)
def test_paths_scale_with_depth_and_are_smooth(name):
    near, far = build(name, 161, 2.0), build(name, 161, 6.0)
    torch.testing.assert_close(far.centers_m, 3 * near.centers_m, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(far.world_to_cam[:, :3, :3], near.world_to_cam[:, :3, :3])
    step = near.centers_m.diff(dim=0).norm(dim=1)
    jerk = near.centers_m.diff(n=2, dim=0).norm(dim=1)
    assert step.max() < 0.03 * 2.0
    assert jerk.max() < 0.002 * 2.0
    turn = near.cam_to_world[:, :3, :3]
    cosine = ((turn[1:].mT @ turn[:-1]).diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    assert torch.rad2deg(torch.acos(cosine.clamp(-1, 1)).max()) < 5


@pytest.mark.parametrize(
    ("name", "share"),
    [("dolly-in", DOLLY_DEPTHS), ("zoom-in", ZOOM_DEPTHS), ("zoom-out", -ZOOM_DEPTHS)],
)
def test_straight_moves_reach_their_distance(name, share):
    assert build(name, 81).centers_m[80, 2] == pytest.approx(4.0 * share)
    assert build(name, 161).centers_m[160, 2] == pytest.approx(8.0 * share)
    assert build(name, 81, strength=0.5).centers_m[80, 2] == pytest.approx(2.0 * share)


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [
        ("truck-left", 0, -1),
        ("truck-right", 0, 1),
        ("orbit-left", 0, -1),
        ("arc-right", 0, 1),
        ("dolly-in", 2, 1),
        ("dolly-out", 2, -1),
        ("zoom-out", 1, -1),
    ],
)
def test_centers_move_as_the_name_says(name, axis, sign):
    assert sign * build(name).centers_m[-1, axis] > 0.05


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("pan-left", 0, -1), ("pan-right", 0, 1), ("tilt-up", 1, -1), ("tilt-down", 1, 1)],
)
def test_turns_look_as_the_name_says(name, axis, sign):
    path = build(name)
    assert path.centers_m.abs().max() == 0
    assert sign * path.cam_to_world[-1, axis, 2] > 0.2


@pytest.mark.parametrize("name", ["orbit-left", "orbit-right", "arc-left", "arc-right"])
def test_circling_keeps_its_subject_in_the_middle(name):
    path = build(name, 161)
    subject = torch.tensor([0.0, 0.0, 4.0])
    for pose in path.world_to_cam[::20]:
        pixel, depth = project(subject, pose, K)
        assert depth == pytest.approx(4.0)
        assert pixel.tolist() == pytest.approx([416.0, 240.0])


def test_out_and_back_returns_exactly():
    path = build("out-and-back", 161)
    assert torch.equal(path.world_to_cam[-1], path.world_to_cam[0])
    assert path.centers_m[80, 2] == pytest.approx(2.0)
    torch.testing.assert_close(path.centers_m, path.centers_m.flip(0), rtol=0, atol=1e-12)


def test_walk_ends_looking_at_where_it_began():
    path = build("walk-forward-and-look-back", 161)
    assert path.centers_m[-1, 2] == pytest.approx(2.0)
    start = path.world_to_cam[-1] @ torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    assert start[2] == pytest.approx(2.0)
    assert start[:2].abs().max() < 1e-12


def test_tilting_stops_before_a_somersault():
    assert build("tilt-up", 961).cam_to_world[:, 1, 2].min() > -0.7072


@pytest.mark.parametrize("num_frames", [80, 82, 1, 0, -79])
def test_counts_must_be_whole_chunks(num_frames):
    with pytest.raises(CameraPathError, match="1 \\+ 80 k"):
        build("dolly-in", num_frames)


def test_previews_may_have_any_count():
    assert len(build("out-and-back", 7, any_count=True)) == 7
    assert len(build("arc-left", 1, any_count=True)) == 1
    with pytest.raises(CameraPathError, match="at least one frame"):
        build("dolly-in", 0, any_count=True)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_depth_and_strength_must_be_positive(bad):
    with pytest.raises(CameraPathError, match="scene depth"):
        build("dolly-in", depth=bad)
    with pytest.raises(CameraPathError, match="strength"):
        build("dolly-in", strength=bad)


def test_reference_presets_go_by_their_long_name():
    path = build("lyra2/horizontal_zoom/right", 81, strength=0.5)
    assert path.centers_m[-1, 2] == pytest.approx(2.0 * 80 / 81)
    assert len(build("lyra2/back_simple/left", 81)) == 81
    noisy = build("lyra2/horizontal_noise/right")
    assert torch.equal(noisy.world_to_cam, build("lyra2/horizontal_noise/right").world_to_cam)


def test_scene_depth_is_the_first_quartile_of_valid_depth():
    depth = torch.arange(1.0, 101.0).reshape(10, 10)
    assert measure_scene_depth_m(depth) == 25.0
    depth[0] = torch.tensor([0.0, -1, torch.nan, torch.inf, 0, 0, 0, 0, 0, 0])
    assert measure_scene_depth_m(depth) == 33.0
    assert measure_scene_depth_m(depth, depth > 50) == 63.0
    with pytest.raises(DepthError, match="none of 100 pixels"):
        measure_scene_depth_m(torch.zeros(10, 10))
