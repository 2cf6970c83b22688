"""Worlds are judged at true views, where the first frame saw what is there, in the truth's scale."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lyra_core.depth import DepthEstimate
from lyra_core.errors import CameraPathError
from lyra_core.evaluation.novel_views import (
    judged_frames,
    parallax_splats,
    seen_by_first,
    true_views,
    world_splats,
)
from lyra_core.world_models.generative import GenerativeModel
from lyra_core.world_models.parallax import ParallaxModel


@pytest.fixture
def clip(wall):
    """A wall whose first camera is the world's origin."""
    made = wall(0.02)  # its depth is the same from all along it: true for a short way
    first = made.cameras.cam_to_world[:1]
    cameras = replace(made.cameras, world_to_cam=made.cameras.world_to_cam @ first)
    return replace(made, cameras=cameras, sky=torch.zeros_like(made.depth_m, dtype=torch.bool))


class HalfAsFar(GenerativeModel):
    """A model that believes everything twice as near as it is and lifts the first frame."""

    def __init__(self, clip):
        self.clip, self.paths = clip, []
        estimator = SimpleNamespace(estimate=lambda frames, cameras: self.estimate)
        depth = clip.depth_m[:1] / 2
        self.estimate = DepthEstimate(depth_m=depth, confidence=torch.ones_like(depth), sky=clip.sky[:1])
        self.parts = SimpleNamespace(models=SimpleNamespace(depth=estimator))

    def generate(self, seed, path, *, num_frames, prompts):
        assert torch.equal(seed.image, self.clip.frames[0])
        self.paths.append(path)
        return replace(self.clip, cameras=path)

    def reconstruct(self, clip):
        first = replace(clip, frames=clip.frames[:1], cameras=clip.cameras[:1])
        return ParallaxModel().reconstruct(replace(first, depth_m=self.clip.depth_m[:1] / 2, sky=self.clip.sky[:1]))


def test_a_world_is_made_in_its_own_scale_and_judged_in_the_truths(clip):
    model = HalfAsFar(clip)
    made = world_splats(model, clip)
    path = model.paths[0]
    assert torch.allclose(path.centers_m, clip.cameras.centers_m / 2)
    exact = ParallaxModel().reconstruct(replace(clip, frames=clip.frames[:1], cameras=clip.cameras[:1],
                                                depth_m=clip.depth_m[:1], sky=clip.sky[:1]))  # fmt: skip
    assert true_views(made, clip).db == pytest.approx(true_views(exact, clip).db, abs=0.5)
    # left in its own metres, the same world is seen from twice as far along
    small = replace(made, means=made.means / 2, scales=made.scales / 2)
    assert true_views(made, clip).db > 3 + true_views(small, clip).db


def test_the_baseline_is_judged_over_the_same_pixels(clip):
    views = true_views(parallax_splats(clip), clip)
    assert views.frames == judged_frames(len(clip))[1:] == [4, 8, 12, 16]
    assert views.drawn.shape == (4, *clip.frames.shape[1:])
    for mask, frame in zip(views.seen, views.frames, strict=True):
        assert torch.equal(mask, seen_by_first(clip, frame))
    shares = views.seen.float().mean((1, 2))
    assert 1 > float(shares[0]) > float(shares[-1]) > 0.5


def test_what_the_first_frame_never_saw_counts_nowhere(clip):
    away = clip.cameras.world_to_cam.clone()
    away[1:, 0, 3] -= 1000.0
    gone = replace(clip, cameras=replace(clip.cameras, world_to_cam=away))
    assert math.isnan(true_views(parallax_splats(gone), gone).db)


def test_without_exact_depth_nothing_is_judged(clip):
    with pytest.raises(CameraPathError, match="exact depth"):
        parallax_splats(replace(clip, depth_m=None))
