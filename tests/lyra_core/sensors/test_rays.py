"""Rays of cameras and scanners: where they point, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from lyra_core.errors import CameraPathError
from lyra_core.sensors.lidar import LidarModel
from lyra_core.sensors.rays import Rays, fisheye_rays, lidar_rays, pinhole_rays

K = torch.tensor([[50.0, 0.0, 32.0], [0.0, 50.0, 24.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
DISTORTION = (0.03, -0.01, 0.002, -0.0003)


def test_pinhole_rays_go_through_pixel_centres():
    rays = pinhole_rays(K, 48, 64).directions
    assert rays.shape == (48, 64, 3)
    pixels = rays[10, 20] / rays[10, 20, 2] @ K.T
    assert pixels[:2].tolist() == pytest.approx([20.5, 10.5])


def test_fisheye_rays_invert_the_model_of_kannala_and_brandt():
    rays = fisheye_rays(K, 48, 64, distortion=DISTORTION).directions
    angle = torch.acos(rays[..., 2].clamp(-1, 1))
    radius = angle * (1 + sum(k * angle ** (2 * i + 2) for i, k in enumerate(DISTORTION)))
    side = torch.nn.functional.normalize(rays[..., :2], dim=-1) * radius[..., None]
    pixels = side * 50 + K[:2, 2]
    v, u = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    seen = rays.norm(dim=-1) > 0
    assert seen.all()
    assert (pixels - torch.stack([u, v], -1)).abs().max() < 1e-6


def test_a_fisheye_sees_behind_itself_and_nothing_outside_its_circle():
    rays = fisheye_rays(
        torch.tensor([[20.0, 0, 50], [0, 20.0, 50], [0, 0, 1]]), 100, 100, max_angle_deg=110.0
    ).directions
    length = rays.norm(dim=-1)
    assert length[0, 0] == 0
    assert length[50, 50] == pytest.approx(1)
    angles = torch.rad2deg(torch.acos(rays[..., 2][length > 0]))
    assert 100 < angles.max() <= 110


def test_a_scanner_turns_to_the_right_from_the_highest_beam_down():
    rays = lidar_rays(LidarModel(elevations_deg=(-10.0, 5.0), columns=4)).directions
    assert rays.shape == (2, 4, 3)
    assert math.degrees(math.asin(-rays[0, 0, 1])) == pytest.approx(5)
    azimuth = torch.rad2deg(torch.atan2(rays[1, :, 0], rays[1, :, 2]))
    assert azimuth.tolist() == pytest.approx([-135, -45, 45, 135])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Rays(directions=torch.ones(2, 2, 3, dtype=torch.float64), pitch_rad=0.1), "unit directions"),
        (lambda: Rays(directions=torch.zeros(2, 2, 3, dtype=torch.float64), pitch_rad=0.1), "unit directions"),
        (lambda: fisheye_rays(K, 4, 4, max_angle_deg=0.0), "180"),
        (lambda: fisheye_rays(K, 4, 4, distortion=(-1.0, 0.0, 0.0, 0.0)), "grow"),
        (lambda: LidarModel(elevations_deg=()), "beams"),
        (lambda: LidarModel(columns=0), "columns"),
        (lambda: LidarModel(max_range=0.0), "positive"),
    ],
)
def test_impossible_sensors_are_refused(make, said):
    with pytest.raises(CameraPathError, match=said):
        make()
