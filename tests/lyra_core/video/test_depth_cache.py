"""Depth windows: which frames, which pixels, in whose scale."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.config.rollout import CORRECTED_DEPTH, CORRECTED_WARP, REFERENCE_DEPTH
from lyra_core.config.video import DepthConfig
from lyra_core.depth import DepthEstimate
from lyra_core.errors import DepthError
from lyra_core.values import CameraPath
from lyra_core.video.depth_cache import estimate_window, overlap_scale, window_frames
from lyra_core.video.memory import StoredView

FRAMES = torch.zeros(2, 32, 48, 3, dtype=torch.uint8)
INTRINSICS = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]], dtype=torch.float64)


def turning_cameras():
    """Two cameras at one place: no baseline tells their scale."""
    w2c = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c, s = torch.cos(torch.tensor(0.1)), torch.sin(torch.tensor(0.1))
    w2c[1, 0, 0] = w2c[1, 2, 2] = c
    w2c[1, 0, 2], w2c[1, 2, 0] = s, -s
    return CameraPath(world_to_cam=w2c, intrinsics=INTRINSICS.repeat(2, 1, 1), image_height=32, image_width=48)


class Estimator:
    def __init__(self, depth, confidence=None, sky=None):
        self.depth, self.confidence, self.sky = depth, confidence, sky
        self.reference = None

    def estimate(self, frames, cameras, reference_depth_m=None):
        self.reference = reference_depth_m
        return DepthEstimate(
            depth_m=self.depth,
            confidence=torch.ones_like(self.depth) if self.confidence is None else self.confidence,
            sky=torch.zeros_like(self.depth, dtype=torch.bool) if self.sky is None else self.sky,
        )


def remembered(depth=3.0):
    return [
        StoredView(
            frame_id=0,
            depth_m=torch.full((32, 48), depth),
            world_to_cam=torch.eye(4),
            intrinsics=INTRINSICS.float(),
        )
    ]


def window(estimator, config, views=()):
    return estimate_window(estimator, FRAMES, turning_cameras(), views, CORRECTED_WARP, config)


def test_windows():
    assert window_frames(80, 80) == list(range(8, 81, 8))
    assert window_frames(160, 80) == list(range(88, 161, 8))
    boundaries = DepthConfig(interval_frames=4, max_frames=3, chunk_boundaries=True)
    assert window_frames(240, 80, boundaries) == [0, 80, 160, 232, 236, 240]
    assert window_frames(8, 8) == [0, 8]


def test_a_camera_that_only_turns_gets_the_scale_of_the_memory():
    estimator = Estimator(torch.full((2, 32, 48), 7.0))
    assert torch.allclose(window(estimator, REFERENCE_DEPTH, remembered()), torch.tensor(7.0))
    assert estimator.reference is None
    aligned = window(estimator, CORRECTED_DEPTH, remembered())
    # Seen after a turn, the wall's z-depth is not constant, but its median stays near 3.
    assert abs(float(aligned.median()) - 3.0) < 0.1
    assert estimator.reference.shape == (2, 32, 48)


def test_confidence_and_sky_take_no_part_in_the_scale():
    depth, confidence, sky = torch.full((2, 32, 48), 6.0), torch.ones(2, 32, 48), torch.zeros(2, 32, 48).bool()
    depth[:, :10], confidence[:, :10] = 60.0, 0.0
    depth[:, 10:20], sky[:, 10:20] = 200.0, True
    aligned = window(Estimator(depth, confidence, sky), CORRECTED_DEPTH, remembered())
    assert (aligned[:, :20] == 0).all()
    assert abs(float(aligned[:, 20:].median()) - 3.0) < 0.1


@pytest.mark.parametrize(("choice", "wanted"), [("estimated", 150.0), ("drop", 0.0), ("far", 1000.0)])
def test_sky(choice, wanted):
    depth, sky = torch.full((2, 32, 48), 5.0), torch.zeros(2, 32, 48).bool()
    depth[:, :4], sky[:, :4] = 150.0, True
    found = window(Estimator(depth, sky=sky), DepthConfig(sky=choice))
    assert (found[:, :4] == wanted).all()
    assert (found[:, 4:] == 5.0).all()


def test_without_overlap_the_estimate_stands():
    views = [
        StoredView(
            frame_id=0,
            depth_m=torch.full((32, 48), 3.0),
            world_to_cam=torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])),  # looks the other way
            intrinsics=INTRINSICS.float(),
        )
    ]
    assert torch.allclose(window(Estimator(torch.full((2, 32, 48), 7.0)), CORRECTED_DEPTH, views), torch.tensor(7.0))


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.05, 20), outliers=st.integers(0, 70))
def test_scale_is_found_among_outliers(scale, outliers):
    generator = torch.Generator().manual_seed(outliers)
    reference = 1 + torch.rand(1, 10, 15, generator=generator)
    depth = reference / scale
    depth.flatten()[:outliers] *= 9.0
    assert overlap_scale(depth, reference, torch.ones_like(depth)) == pytest.approx(scale, rel=1e-4)


def test_scale_weighs_pixels():
    depth, weights = torch.ones(1, 1, 10), torch.ones(1, 1, 10)
    reference = torch.full((1, 1, 10), 2.0)
    reference[..., 7:], weights[..., 7:] = 5.0, 4.0
    assert overlap_scale(depth, reference, weights) == pytest.approx(5.0)
    assert overlap_scale(depth, reference, torch.ones_like(weights)) == pytest.approx(2.0)


def test_nothing_valid_is_an_error():
    depth = torch.full((2, 32, 48), 5.0)
    depth[1] = 0
    with pytest.raises(DepthError, match=r"found none in frames \[1\]"):
        window(Estimator(depth), REFERENCE_DEPTH)


def test_depth_of_another_size_is_an_error():
    with pytest.raises(DepthError, match=r"depth_m must be \(2, 32, 48\).*found \(2, 16, 24\)"):
        window(Estimator(torch.ones(2, 16, 24)), REFERENCE_DEPTH)
