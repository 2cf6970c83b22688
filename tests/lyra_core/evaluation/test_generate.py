"""Batched generation is the rollout: the same frames and the same believed depth, world for world."""

from dataclasses import replace

import pytest
import torch

from lyra_core.evaluation.estimated_depth import EstimatedDepth, camera_path, with_seed_depth
from lyra_core.evaluation.generate import generate
from lyra_core.mini.config import MINI, MINI_DIT
from lyra_core.mini.depth import TINY_MINI_DEPTH, MiniDepth
from lyra_core.mini.depth_estimator import MiniDepthEstimator
from lyra_core.mini.encoders import caption_bytes
from lyra_core.mini.networks import build_mini_networks
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.worlds import SceneLook, scene_clip
from lyra_core.values import Seed
from lyra_core.video.depth_cache import SKY_DEPTH_M
from lyra_core.video.rollout import Rollout, RolloutModels
from lyra_core.video.world_state import to_unit_range

SMALL = {"dim": 32, "ffn_dim": 32, "num_heads": 2, "num_layers": 1, "squeeze_dim": 4, "text_dim": 8, "image_dim": 8}
DIT = replace(MINI_DIT, layout="f1k1f4s2f1s1f2k2f1k1_g2", **SMALL)
HEIGHT, WIDTH, FRAMES = 32, 64, 9


@pytest.fixture(scope="module")
def clips():
    made = [scene_clip(seed, "truck-left", FRAMES, HEIGHT, WIDTH, SceneLook(supersample=1)) for seed in (1, 2)]
    return Clips(
        frames=torch.stack([torch.stack([to_unit_range(frame) for frame in clip.frames]) for clip in made]),
        depth_m=torch.stack([torch.where(clip.sky, SKY_DEPTH_M, clip.depth_m) for clip in made]),
        world_to_cam=torch.stack([clip.cameras.world_to_cam for clip in made]).float(),
        intrinsics=torch.stack([clip.cameras.intrinsics for clip in made]).float(),
        captions=caption_bytes(["a room"] * 2),
    )


@pytest.fixture(scope="module")
def estimator():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = MiniDepth(TINY_MINI_DEPTH).eval().requires_grad_(requires_grad=False)
    model.dense[-1].bias[2] = -1.0  # untrained, it would take half of every picture for sky
    return MiniDepthEstimator(model, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def parts():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(1)
        vae = build_mini_vae(TINY_MINI_VAE).eval()
    networks = build_mini_networks(DIT, 1).eval()
    with torch.no_grad():
        networks.dit.head.head.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(2))
    maker = ChunkMaker(vae, DIT.history_layout, MINI, ChunkConfig(num_chunks=1, memory_drop=0.0, depth_noise=0.0))
    return networks, maker


def rolled(networks, maker, estimator, seeds, index):
    """The rollout's clip of one of the seeds."""
    models = RolloutModels(dit=networks.dit, vae=maker.vae, depth=estimator, text=networks.text, image=networks.image)
    image = ((seeds.frames[index, 0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    intrinsics = seeds.intrinsics[index, 0].double()
    seed = Seed(image=image, intrinsics=intrinsics, sha256="0" * 64, focal_source="manifest")
    rollout = Rollout(models, MINI, noise_seed=lambda chunk_id, chunk: 5)
    ids = ["0" * 64]
    return rollout.run(seed, camera_path(seeds, index), ["a room"], ids, seed_depth_m=seeds.depth_m[index, 0])


def test_one_world_is_what_the_rollout_makes(clips, estimator, parts):
    networks, maker = parts
    seeds = with_seed_depth(clips[:1], estimator, MINI.depth)
    made = generate(networks, maker, seeds, MINI, torch.Generator().manual_seed(5), estimator=estimator)
    clip = rolled(networks, maker, estimator, seeds, 0)
    theirs = torch.stack([to_unit_range(frame) for frame in clip.frames])
    assert (made[0] - theirs).abs().max() < 2 / 255
    believed = EstimatedDepth(seeds, estimator, MINI)
    believed.after_chunk(theirs[None], FRAMES - 1, maker.chunk_frames)
    assert torch.allclose(believed.depth_m[0], clip.depth_m, rtol=1e-4, atol=1e-5)


def test_depth_of_a_seed_has_the_scale_of_the_truth(clips, estimator):
    found = with_seed_depth(clips, estimator, MINI.depth)
    assert not bool(found.depth_m[:, 1:].any())
    for known, truth in zip(found.depth_m[:, 0], clips.depth_m[:, 0], strict=True):
        both = (known > 0) & (known < SKY_DEPTH_M) & (truth < SKY_DEPTH_M)
        assert float((known[both] / truth[both]).median()) == pytest.approx(1.0, abs=0.02)


def test_worlds_side_by_side_do_not_touch(clips, estimator, parts):
    _, maker = parts
    seeds = with_seed_depth(clips, estimator, MINI.depth)
    both = EstimatedDepth(seeds, estimator, MINI)
    both.after_chunk(clips.frames, FRAMES - 1, maker.chunk_frames)
    alone = EstimatedDepth(seeds[1:], estimator, MINI)
    alone.after_chunk(clips.frames[1:], FRAMES - 1, maker.chunk_frames)
    assert torch.allclose(both.depth_m[1], alone.depth_m[0])
    assert both.memories[1].frame_ids == (0, 8)
