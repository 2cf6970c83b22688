"""Reconstruction with its networks and its clip on CUDA: the same Gaussians, bounded, drawn alike by both engines."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from lyra_core.gaussians.depth_anything.config import BackboneConfig, DepthAnythingConfig, HeadConfig, NestedConfig
from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
from lyra_core.gaussians.depth_anything.model import build_model, random_state
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import ClipDepthLifter, DepthLifter, HeadLifter
from lyra_core.gaussians.prune import is_finite
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.refine import RefineConfig, refine
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.procedural.perturbed import perturbed_clip
from lyra_core.values import VideoClip

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
needs_gsplat = pytest.mark.skipif(importlib.util.find_spec("gsplat") is None, reason="needs gsplat")
EVERY_FRAME = KeyframeConfig(max_shift=0.0, min_shared=1.0)


def on_gpu(clip: VideoClip) -> VideoClip:
    layers = {name: getattr(clip, name).cuda() for name in ("frames", "depth_m", "sky")}
    return replace(clip, **layers)


def estimator(device: str) -> DepthAnythingEstimator:
    head = HeadConfig(features=16, out_channels=(8, 16, 16, 16))
    giant = DepthAnythingConfig(
        backbone=BackboneConfig(dim=64, depth=6, num_heads=1, out_layers=(2, 3, 4, 5), alt_start=2, swiglu=True),
        head=head,
        gaussian_head=True,
    )
    metric = DepthAnythingConfig(
        backbone=BackboneConfig(dim=64, depth=4, num_heads=1, out_layers=(0, 1, 2, 3), alt_start=None), head=head
    )
    config = NestedConfig(any_view=giant, metric=metric)
    state = random_state(config, torch.Generator().manual_seed(0))
    for name, tensor in state.items():
        if name.endswith("gamma"):
            tensor.fill_(0.3)
        if name.endswith("fc_fov.0.bias"):
            tensor.fill_(1.0)
    return DepthAnythingEstimator(build_model(config, state).to(device), process_size=56)


def test_a_clip_on_the_gpu_gives_the_same_bytes(make_clip):
    clip = make_clip(13)
    config = ReconstructionConfig(tier=2000, chunk_frames=6, keyframes=EVERY_FRAME)
    here = reconstruct(clip, lifter=ClipDepthLifter(), config=config)
    there = reconstruct(on_gpu(clip), lifter=ClipDepthLifter(), config=config)
    assert here.report.num_chunks > 1
    assert here.report.coarsenings > 0
    assert len(there.gaussians) <= 2000
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(here.gaussians, name), getattr(there.gaussians, name))


@pytest.mark.parametrize("head", [False, True])
def test_networks_on_the_gpu_reconstruct_in_chunks(make_clip, head: bool):
    clip = make_clip(9, 56, 56)
    bare = VideoClip(frames=clip.frames.cuda(), cameras=clip.cameras)
    config = ReconstructionConfig(tier=1500, chunk_frames=6, keyframes=EVERY_FRAME, color_passes=1, sample_views=3)
    made = estimator("cuda")
    lifter = HeadLifter(made, name="tiny") if head else DepthLifter(made, name="tiny", needs_baseline=False)
    found = reconstruct(bare, lifter=lifter, config=config)
    assert found.report.num_chunks > 1
    assert 0 < len(found.gaussians) <= 1500
    assert is_finite(found.gaussians).all()
    assert not found.gaussians.means.is_cuda


@needs_gsplat
@pytest.mark.parametrize("tier", [500, 2000, 20_000])
def test_every_size_is_drawn_alike_by_both_engines(make_clip, tier: int):
    clip = make_clip(13)
    world = reconstruct(clip, lifter=ClipDepthLifter(), config=ReconstructionConfig(tier=tier)).gaussians
    fast = render(world.to("cuda"), clip.cameras, engine="gsplat")
    slow = render(world, clip.cameras, engine="numba")
    assert len(world) <= tier
    assert psnr_db(fast.color.cpu(), slow.color) >= 40.0


@needs_gsplat
def test_refinement_of_a_perturbed_video_gains():
    film = perturbed_clip(11, "truck-left", 33, 96, 168)
    config = ReconstructionConfig(tier=20_000, keyframes=KeyframeConfig(max_keyframes=10), sample_views=8)
    world = reconstruct(film.perturbed, lifter=ClipDepthLifter(), config=config).gaussians
    found = refine(world.to("cuda"), film.perturbed, RefineConfig(steps=300))
    assert found.is_kept
    assert found.psnr_after_db > found.psnr_before_db + 0.2
