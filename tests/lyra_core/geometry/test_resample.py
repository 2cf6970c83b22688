"""Paths at other frame rates."""

from dataclasses import replace

import pytest
import torch

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_paths import build_camera_path
from lyra_core.geometry.resample import poses_at, resampled

LENS = torch.tensor([[300.0, 0, 160], [0, 300, 96], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def path():
    """Ten frames a second, four seconds; it turns, moves and zooms."""
    found = build_camera_path(
        "orbit-left",
        num_frames=41,
        intrinsics=LENS,
        image_height=192,
        image_width=320,
        scene_depth_m=4.0,
        any_count=True,
    )
    lenses = found.intrinsics.clone()
    lenses[:, 0, 0] = torch.linspace(300.0, 340.0, 41, dtype=torch.float64)
    return replace(found, intrinsics=lenses)


def test_the_same_moments_have_the_same_cameras(path):
    faster = resampled(path, 10.0, 30.0)
    assert len(faster) == 121
    assert torch.allclose(faster.world_to_cam[::3], path.world_to_cam, atol=1e-9)
    assert torch.allclose(faster.intrinsics[::3], path.intrinsics, atol=1e-9)
    steps = faster.centers_m.diff(dim=0).norm(dim=1)
    assert steps == pytest.approx((path.centers_m.diff(dim=0).norm(dim=1) / 3).repeat_interleave(3), rel=1e-6)
    back = resampled(faster, 30.0, 10.0)
    assert torch.allclose(back.world_to_cam, path.world_to_cam, atol=1e-9)


@pytest.mark.parametrize("fps", [7.0, 16.0, 23.976, 30.0])
def test_both_ends_stay(path, fps):
    other = resampled(path, 10.0, fps)
    assert len(other) == 1 + round(4 * fps)
    assert torch.allclose(other.world_to_cam[[0, -1]], path.world_to_cam[[0, -1]], atol=1e-9)
    assert (other.image_height, other.image_width, other.name) == (192, 320, path.name)


def test_one_camera_stays_one(path):
    assert len(resampled(path[:1], 10.0, 30.0)) == 1
    assert poses_at(path.world_to_cam[:1], torch.zeros(1), torch.zeros(1)).shape == (1, 4, 4)


@pytest.mark.parametrize("rates", [(0.0, 30.0), (10.0, float("nan")), (-1.0, 30.0), (10.0, float("inf"))])
def test_rates_that_are_none(path, rates):
    with pytest.raises(CameraPathError, match="frame rates are positive numbers, found"):
        resampled(path, *rates)
