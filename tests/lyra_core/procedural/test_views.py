"""Cameras stay clear of everything, see more than one plane, and return where they promise to."""

import math

import pytest
import torch

from lyra_core.errors import CameraPathError
from lyra_core.procedural.scenes import COMPOSERS, sample_scene
from lyra_core.procedural.views import MARGIN, PATHS, sample_path, view_shares


@pytest.mark.parametrize("kind", COMPOSERS)
def test_no_camera_enters_geometry(kind):
    for seed in range(4):
        scene = sample_scene(seed, "heldout", kind=kind)
        path = sample_path(scene, PATHS[(5 * seed) % len(PATHS)], 33, 32, 56)
        moved = path.centers_m
        # the start is clear by sample_start; a path that cannot move stays there
        assert float(scene.clearance_m(moved).min()) > 0.5 * MARGIN * scene.size_m


def test_clearance_is_negative_inside_and_a_distance_outside():
    scene = sample_scene(0, kind="street")
    inside = scene.boxes.center
    assert bool((scene.clearance_m(inside) < 0).all())
    below = torch.tensor([[0.0, 1.0, 0.0]])
    assert float(scene.clearance_m(below)) < 0
    far = torch.tensor([[0.0, -60.0, 0.0]])
    assert float(scene.clearance_m(far)) > 20


def test_views_hold_more_than_one_plane():
    shares = []
    for seed in range(8):
        scene = sample_scene(seed)
        path = sample_path(scene, "wander", 1, 32, 56)
        fov = 2 * math.atan(28 / float(path.intrinsics[0, 0, 0]))
        shares.append(view_shares(scene, path.cam_to_world[0].numpy(), fov)[0])
    assert sum(share <= 0.6 for share in shares) >= 7


def test_wander_and_return_comes_back_and_wanders():
    path = sample_path(sample_scene(3, kind="terrain"), "wander-and-return", 21, 32, 56)
    torch.testing.assert_close(path.world_to_cam[-1], path.world_to_cam[0], atol=1e-9, rtol=0)
    assert float((path.centers_m[10] - path.centers_m[0]).norm()) > 0.02


def test_same_arguments_same_path_and_takes_differ():
    scene = sample_scene(2, kind="room")
    one, two = (sample_path(scene, "wander", 5, 32, 56) for _ in range(2))
    assert torch.equal(one.world_to_cam, two.world_to_cam)
    other = sample_path(scene, "wander", 5, 32, 56, take=1)
    assert not torch.allclose(one.world_to_cam, other.world_to_cam)


def test_unknown_path_is_refused():
    with pytest.raises(CameraPathError, match="fly-through"):
        sample_path(sample_scene(0), "fly-through", 5, 32, 56)
