"""The whole way from a clip to Gaussians through a real network, tiny and with random weights."""

import torch

from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
from lyra_core.gaussians.depth_anything.model import NestedDepthAnything3
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import DepthLifter, HeadLifter, Lifter, place_in_world
from lyra_core.gaussians.prune import is_finite
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.values import VideoClip


def without_depth(clip: VideoClip) -> VideoClip:
    return VideoClip(frames=clip.frames, cameras=clip.cameras)


def test_the_heads_gaussians_return_to_where_the_network_put_them(make_clip, tiny_nested: NestedDepthAnything3):
    clip = without_depth(make_clip(4, 56, 56))
    estimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    head = HeadLifter(estimator, name="tiny").lift(clip, None, Budget(views=4)).head
    scene = estimator.view(clip.frames, clip.cameras, None, gaussian_stride=2)
    made = scene.gaussians("recovered")
    placed, spacing = place_in_world(head, 2, scene.recovered[2], 1.0)
    assert 0 < len(placed) < len(made) // 4  # a margin is left out, and the faint
    nearest = torch.cdist(placed.means, made.means).amin(1)
    assert float(nearest.max()) < 1e-3 * float(made.means.norm(dim=1).max())
    assert len(spacing) == len(placed)


def test_both_lifters_reconstruct_in_chunks(make_clip, tiny_nested: NestedDepthAnything3, tmp_path):
    clip = without_depth(make_clip(9, 56, 56))
    estimator = DepthAnythingEstimator(tiny_nested, process_size=56)
    config = ReconstructionConfig(
        chunk_frames=6, keyframes=KeyframeConfig(max_shift=0.0, min_shared=1.0), color_passes=1, sample_views=3
    )
    lifters: list[Lifter] = [
        DepthLifter(estimator, name="tiny", needs_baseline=False),
        HeadLifter(estimator, name="tiny"),
    ]
    for lifter in lifters:
        found = reconstruct(clip, lifter=lifter, config=config, chunk_dir=tmp_path)
        again = reconstruct(clip, lifter=lifter, config=config, chunk_dir=tmp_path)
        assert is_finite(found.gaussians).all()
        assert found.report.num_chunks > 1
        assert found.report.residual_deg is not None
        assert again.report.resumed_chunks == again.report.num_chunks
        assert torch.equal(found.gaussians.means, again.gaussians.means)
    assert found.gaussians.sh_degree == 2
