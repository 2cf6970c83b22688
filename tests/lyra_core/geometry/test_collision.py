import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.errors import CameraPathError, DepthError
from lyra_core.geometry.camera import intrinsics_from_hfov
from lyra_core.geometry.camera_paths import build_camera_path
from lyra_core.geometry.collision import fit_before_geometry, sample_path, stop_before_geometry
from lyra_core.geometry.seed_cameras import cameras_for_seed

H, W = 60, 104
K = intrinsics_from_hfov(55.0, H, W)


def build(name, num_frames=241, depth=4.0, strength=1.0):
    return build_camera_path(
        name,
        num_frames=num_frames,
        intrinsics=K,
        image_height=H,
        image_width=W,
        scene_depth_m=depth,
        strength=strength,
    )


@given(
    st.floats(0.6, 5.5),
    st.floats(0.05, 0.5),
    st.sampled_from(["zoom-in", "dolly-in", "out-and-back"]),
)
@settings(max_examples=25, deadline=None)
def test_a_wall_is_never_passed_and_nothing_jumps(wall, margin, name):
    path = build(name, strength=2.0)
    path = path if path.centers_m[:, 2].max() > wall else build("zoom-in", strength=2.0)
    stopped = stop_before_geometry(path, torch.full((H, W), wall), K, margin)
    z = stopped.centers_m[:, 2]
    assert len(stopped) == len(path)
    assert z.max() <= wall - margin + 1e-9
    assert z.max() > 0.85 * (wall - margin) - 0.1  # it does come near
    pace = path.centers_m.diff(dim=0).norm(dim=1).max()
    assert stopped.centers_m.diff(dim=0).norm(dim=1).max() <= pace * (1 + 1e-9)
    assert stopped.centers_m.diff(n=2, dim=0).norm(dim=1).max() < 0.25 * pace
    assert torch.equal(stopped.world_to_cam[-1], stopped.world_to_cam[-2])  # at rest


def test_frames_before_the_slowdown_keep_their_bits():
    path = build("zoom-in")
    stopped = stop_before_geometry(path, torch.full((H, W), 4.0), K, 0.3)
    same = (stopped.world_to_cam == path.world_to_cam).flatten(1).all(1)
    assert same[:100].all()
    first_changed = int((~same).nonzero()[0])
    assert not same[first_changed:].any()


@pytest.mark.parametrize("name", ["truck-left", "truck-right", "dolly-out", "pan-left", "zoom-out"])
def test_moves_outside_the_frustum_are_untouched(name):
    path = build(name)
    assert stop_before_geometry(path, torch.full((H, W), 0.5), K, 0.3) is path


def test_unknown_depth_stops_nothing():
    path = build("zoom-in", strength=3.0)
    assert stop_before_geometry(path, torch.zeros(H, W), K, 0.3) is path


def test_a_thin_trunk_off_the_pixel_still_stops():
    depth = torch.full((H, W), 50.0)
    depth[:, W // 2 + 1] = 2.0
    stopped = stop_before_geometry(build("zoom-in"), depth, K, 0.2)
    assert stopped.centers_m[-1, 2] <= 1.8
    depth[:] = 50.0
    depth[:, 5] = 2.0
    path = build("zoom-in")
    assert stop_before_geometry(path, depth, K, 0.2) is path


def test_a_fast_camera_does_not_jump_through_a_thin_obstacle():
    path = build("truck-right", 81, strength=40.0)  # 0.5 m a frame
    forward = build("zoom-in", 81, strength=2.0).world_to_cam
    moved = path.world_to_cam.clone()
    moved[:, 2, 3] = forward[:, 2, 3].clamp(max=-1e-3) - 2.0
    moved[0] = torch.eye(4)
    depth = torch.full((H, W), 50.0)
    depth[:, 70:76] = 1.0
    from dataclasses import replace

    stopped = stop_before_geometry(replace(path, world_to_cam=moved), depth, K, 0.0)
    assert stopped.centers_m[-1, 0] < moved[-1, 0, 3].abs()


def test_already_too_near_stands_still():
    stopped = stop_before_geometry(build("zoom-in"), torch.full((H, W), 0.1), K, 0.3)
    assert stopped.centers_m.abs().max() < 0.01


def test_wrong_inputs_are_refused():
    path = build("zoom-in")
    with pytest.raises(CameraPathError, match="margin"):
        stop_before_geometry(path, torch.ones(H, W), K, -0.1)
    with pytest.raises(DepthError, match="NaN"):
        stop_before_geometry(path, torch.full((H, W), torch.nan), K, 0.1)


@given(st.floats(0.6, 3.5), st.sampled_from(["out-and-back", "walk-forward-and-look-back"]))
@settings(max_examples=15, deadline=None)
def test_a_gesture_in_the_way_of_a_wall_becomes_smaller_and_keeps_its_end(wall, name):
    def gesture(strength: float):
        return build(name, 81, strength=strength)

    fitted = fit_before_geometry(gesture, torch.full((H, W), wall), K, 0.3)
    z = fitted.centers_m[:, 2]
    assert z.max() <= wall - 0.3
    free = gesture(1.0).centers_m[:, 2].max() <= wall - 0.3
    if free:
        assert torch.equal(fitted.world_to_cam, gesture(1.0).world_to_cam)
    else:
        assert z.max() > 0.9 * (wall - 0.3) - 0.05  # nearly as large as fits
    if name == "out-and-back":
        torch.testing.assert_close(fitted.world_to_cam[-1], fitted.world_to_cam[0], rtol=0, atol=1e-12)
        assert z[40] == z.max()
    if name == "walk-forward-and-look-back":
        assert fitted.world_to_cam[-1, 2, 2] == pytest.approx(-1.0)
    assert fitted.world_to_cam.diff(dim=0).abs().amax() > 1e-3  # it moves


def test_a_gesture_with_no_room_hardly_moves():
    fitted = fit_before_geometry(lambda s: build("out-and-back", 81, strength=s), torch.full((H, W), 0.2), K, 0.3)
    assert 0 < fitted.centers_m.norm(dim=1).max() < 0.02
    with pytest.raises(CameraPathError, match="margin"):
        fit_before_geometry(lambda s: build("out-and-back", 81, strength=s), torch.ones(H, W), K, -1.0)


@pytest.mark.parametrize("name", ["out-and-back", "zoom-in"])
def test_a_seed_before_a_wall_gets_a_path_that_ends_as_it_should(name):
    depth = torch.full((H, W), 4.0)
    depth[20:40, 40:64] = 1.0
    path = cameras_for_seed(name, num_frames=81, intrinsics=K, depth_m=depth, sky=depth < 0)
    assert 0.2 < path.centers_m[:, 2].max() <= 1.0
    assert (path.centers_m[-1, 2] < 1e-9) == (name == "out-and-back")


def test_sampling_at_frames_gives_the_frames():
    path = build("walk-forward-and-look-back", 81)
    again = sample_path(path, torch.arange(81.0))
    torch.testing.assert_close(again.world_to_cam, path.world_to_cam, rtol=0, atol=1e-12)
    half = sample_path(path, torch.tensor([10.5]))
    torch.testing.assert_close(half.centers_m[0], path.centers_m[10:12].mean(0))
