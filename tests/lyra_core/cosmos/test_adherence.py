"""Measured against request, and bent back to it."""

import math

import cosmos_scene as scene
import pytest
import torch

from lyra_core.config.cosmos import CAMERA
from lyra_core.cosmos.adherence import bend_back, between, frames_to_look_at, look, measure
from lyra_core.geometry.rotation import invert_rigid, rigid, rotation_angle_deg

EYE = torch.eye(4, dtype=torch.float64)


def centers(world_to_cam):
    return invert_rigid(world_to_cam)[:, :3, 3]


def straight(count, step):
    poses = EYE.repeat(count, 1, 1)
    poses[:, :3, 3] = -torch.arange(count, dtype=torch.float64)[:, None] * torch.tensor(step, dtype=torch.float64)
    return poses


def test_a_path_that_is_followed():
    path = scene.path(9).world_to_cam
    found = measure(path, path @ straight(2, [3.0, 0, 0])[1])  # another world frame is no error
    assert found.rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert found.direction_deg == pytest.approx(0.0, abs=1e-4)
    assert found.length_ratio == pytest.approx(1.0)


def test_half_the_way_in_another_direction():
    found = measure(straight(5, [0.1, 0, 0]), straight(5, [0.05, 0, 0.05]))
    assert found.direction_deg == pytest.approx(45.0)
    assert found.length_ratio == pytest.approx(math.sqrt(0.5))
    still = measure(straight(5, [0.0, 0, 0]), straight(5, [0.05, 0, 0]))
    assert math.isnan(still.length_ratio)
    assert math.isnan(still.direction_deg)


def test_scale_comes_from_known_depth_and_not_from_the_request():
    depth = scene.SlopeDepth(step_m=0.05, gain=0.5, unit=7.0)
    frames = scene.photograph().image.expand(3, -1, -1, -1)
    known = torch.linspace(3.0, 5.0, scene.HEIGHT)[:, None].expand(scene.HEIGHT, scene.WIDTH).contiguous()
    start = straight(2, [1.0, 2.0, 3.0])[1]
    seen = look(depth, frames, known, start, scene.path(3, step_m=5.0), CAMERA.depth)
    assert seen.depth_m[:, 0, 0].tolist() == pytest.approx([3.0] * 3, abs=1e-4)
    assert centers(seen.world_to_cam)[0].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert centers(seen.world_to_cam)[2].tolist() == pytest.approx([1.4, 2.0, 3.0], abs=1e-6)


def test_between_looks_cameras_move_evenly():
    turned = scene.path(9, turn_deg=2.0).world_to_cam
    filled = between([4, 12], turned[[0, 8]])
    assert filled.shape == (9, 4, 4)
    assert torch.allclose(filled, turned, atol=1e-9), "a path of even steps is met everywhere"
    assert torch.allclose(between([0, 2, 8], turned[[0, 2, 8]]), turned, atol=1e-9)


def test_bending_back_ends_on_the_request_where_the_caps_allow_it():
    asked = straight(11, [0.1, 0, 0])
    off = (
        asked[0]
        @ rigid(torch.eye(3, dtype=torch.float64)[None], torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64))[0]
    )
    bent = bend_back(asked, off, 3.0, 0.2)
    assert torch.allclose(bent[0], off, atol=1e-12)
    assert torch.allclose(bent[-1], asked[-1], atol=1e-12)
    half = bend_back(asked, off, 3.0, 0.05)  # 5 % of 1 m
    assert (centers(half)[-1] - centers(asked)[-1]).norm() == pytest.approx(0.05, abs=1e-9)


def test_a_turn_is_made_up_for_by_no_more_than_the_cap():
    asked = straight(11, [0.1, 0, 0])
    turned = scene.path(2, step_m=0.0, turn_deg=10.0).world_to_cam[1]
    bent = bend_back(asked, turned, 3.0, 0.2)
    rest = rotation_angle_deg((bent[-1] @ invert_rigid(asked[-1:])[0])[:3, :3])
    assert float(rest) == pytest.approx(7.0, abs=1e-6)
    assert torch.allclose(bend_back(asked, asked[0], 3.0, 0.2), asked, atol=1e-12)


def test_the_last_frame_of_a_chunk_is_always_looked_at():
    assert frames_to_look_at(1, 60, 8) == [0, 4, 12, 20, 28, 36, 44, 52, 60]
    assert frames_to_look_at(5, 4, 8) == [4, 8]
