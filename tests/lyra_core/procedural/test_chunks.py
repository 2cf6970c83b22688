"""Training samples know what the rollout would know: the same conditions, retrieved frames and targets."""

from dataclasses import replace

import pytest
import torch

from lyra_core.config.rollout import REFERENCE
from lyra_core.mini.config import MINI
from lyra_core.mini.encoders import caption_bytes
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.worlds import SceneLook, scene_clip
from lyra_core.video.chunk_batch import build_inputs
from lyra_core.video.conditioning import ChunkRequest, Conditioner
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.memory import SpatialMemory, query_offsets

LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f4k2f1k1_g4")
HEIGHT, WIDTH, CHUNK = 32, 64, 16


@pytest.fixture(scope="module")
def maker():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = build_mini_vae(TINY_MINI_VAE).eval()
    return ChunkMaker(vae, LAYOUT, MINI, ChunkConfig(num_chunks=2, memory_drop=0.0, depth_noise=0.0))


@pytest.fixture(scope="module")
def clips(maker):
    made = [
        scene_clip(seed, name, maker.num_frames, HEIGHT, WIDTH, SceneLook(kind="room", supersample=1))
        for seed, name in ((0, "wander"), (1, "wander-and-return"))
    ]
    return Clips(
        frames=torch.stack([c.frames for c in made]).permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
        depth_m=torch.stack([c.depth_m for c in made]),
        world_to_cam=torch.stack([c.cameras.world_to_cam for c in made]).float(),
        intrinsics=torch.stack([c.cameras.intrinsics for c in made]).float(),
        captions=caption_bytes(["a room", "another room"]),
    )


def as_in_a_rollout(maker, clips, latents, chunk, item, rollout=MINI):
    """Inputs as Conditioner.build makes them from a memory that was filled frame by frame."""
    first = 1 + CHUNK * chunk
    w2c, K = clips.world_to_cam[item], clips.intrinsics[item]
    memory = SpatialMemory(HEIGHT, WIDTH, rollout.memory)
    stored = list(range(0, first, rollout.memory.stride_frames))
    memory.add(stored, clips.depth_m[item, stored], w2c[stored], K[stored])
    asking = [first + i for i in query_offsets(rollout.memory.num_query_cameras, CHUNK)]
    found = memory.retrieve(w2c[asking], K[asking])
    request = ChunkRequest(
        world_to_cam=w2c[: first + CHUNK],
        intrinsics=K[: first + CHUNK],
        first_frame=first,
        history=latents[item, :, : LAYOUT.num_history + LAYOUT.num_generated * chunk],
        last_image=clips.frames[item, first - 1],
        last_depth_m=clips.depth_m[item, first - 1],
        retrieved=tuple(memory.view(i) for i in found),
    )
    conditioner = Conditioner(maker.vae, LAYOUT, lambda i: clips.frames[item, i], rollout.conditioning, 20)
    return conditioner.build(request), found


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("rollout", [MINI, REFERENCE], ids=["mini", "released"])
def test_conditions_are_those_of_the_rollout(maker, clips, chunk, rollout):
    maker = ChunkMaker(maker.vae, LAYOUT, replace(rollout, encoded_prefix=2), maker.config)
    latents = maker.encode(clips.frames)
    batch = maker.chunk_batch(clips, latents, chunk)
    inputs = build_inputs(batch, maker.vae, LAYOUT, rollout.conditioning)
    for item in range(2):
        wanted, found = as_in_a_rollout(maker, clips, latents, chunk, item, rollout)
        assert int(batch.views.valid[item].sum()) == len(found)
        for name in ("history", "condition", "rays", "correspondence"):
            torch.testing.assert_close(getattr(inputs, name)[item], getattr(wanted, name)[0], atol=1e-5, rtol=0)


def test_rows_keep_the_inputs_and_the_target(maker, clips):
    latents = maker.encode(clips.frames)
    rows = maker.rows(clips, latents, 1, torch.Generator().manual_seed(0))
    inputs = build_inputs(maker.chunk_batch(clips, latents, 1), maker.vae, LAYOUT, MINI.conditioning)
    kept = rows.inputs(LAYOUT, MINI)
    for name in ("history", "condition", "rays", "correspondence"):
        torch.testing.assert_close(getattr(kept, name).float(), getattr(inputs, name), atol=0.03, rtol=0.01)
    direct = maker.vae.encode(clips.frames.transpose(1, 2))[:, :, -LAYOUT.num_generated :]
    torch.testing.assert_close(rows.target.float(), direct, atol=0.02, rtol=0.01)


def test_true_frames_are_kept_beside_their_latents(maker, clips):
    assert maker.rows(clips, maker.encode(clips.frames), 1, torch.Generator()).frames.shape[2] == 0
    keeping = ChunkMaker(maker.vae, LAYOUT, MINI, replace(maker.config, kept_latents=2))
    for seed in range(3):
        rows = keeping.rows(clips, keeping.encode(clips.frames), 1, torch.Generator().manual_seed(seed))
        assert rows.frames.shape == (2, 3, 8, HEIGHT, WIDTH)
        for item, group in enumerate(rows.group.tolist()):
            assert 1 <= group <= LAYOUT.num_generated - 2
            first = 1 + CHUNK + 4 * group
            wanted = clips.frames[item, first : first + 8].transpose(0, 1)
            torch.testing.assert_close(rows.frames[item].float() / 127.5 - 1, wanted, atol=0.005, rtol=0.0)


def test_a_perfect_network_augments_with_its_reconstruction(maker, clips):
    """History is what was decoded and encoded again; the target stays that of the true frames."""
    latents = maker.encode(clips.frames)
    plain = maker.rows(clips, latents, 1, torch.Generator().manual_seed(0))
    augmented = maker.self_augmented(clips, latents, 1, lambda rows: rows.target, torch.Generator().manual_seed(0))
    assert torch.equal(plain.target, augmented.target)
    assert torch.equal(plain.rays, augmented.rays)
    assert not torch.equal(plain.history[:, :, -1], augmented.history[:, :, -1])
    start = LAYOUT.num_history
    decoded = maker.vae.decode(latents[:, :, start - 1 : start + 4].bfloat16().float())[:, :, 1:].clamp(-1, 1)
    again = maker.vae.encode(torch.cat([decoded[:, :, :1], decoded], 2))[:, :, -1]
    torch.testing.assert_close(augmented.history[:, :, -1].float(), again, atol=0.03, rtol=0.02)


def test_memory_and_depth_are_disturbed_in_the_asked_share(maker, clips):
    generator = torch.Generator().manual_seed(0)
    noisy = ChunkMaker(maker.vae, LAYOUT, MINI, replace(maker.config, depth_noise=1.0, depth_error=0.02))
    ratio = (noisy.disturbed(clips, generator).depth_m / clips.depth_m)[clips.depth_m > 0].log()
    assert 0.005 < float(ratio.std()) < 0.03
    assert torch.equal(maker.disturbed(clips, generator).depth_m, clips.depth_m)
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert not bool(maker.chunk_batch(clips, maker.encode(clips.frames), 1, everything).views.valid.any())
