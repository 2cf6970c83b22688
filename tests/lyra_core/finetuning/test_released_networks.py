"""Two training steps of the released network's code path, at tiny widths: its layout, autoencoder and conditions."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lyra_core.config.rollout import REFERENCE
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.mini.encoders import caption_bytes
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.procedural.clips import Clips
from lyra_core.procedural.worlds import SceneLook, scene_clip
from lyra_core.training.flow import FlowConfig, flow_loss, one_step_prediction
from lyra_core.training.loop import train
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.run import TrainingRun
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.vae.network import TINY_VAE, build_vae

LAYOUT = "f1k1f4s2f1s1f4k4f2k2f1k1_g2"
SIZE = (32, 48)


def tiny_world():
    path = Path(__file__).parents[1] / "video" / "tiny_world.py"
    spec = importlib.util.spec_from_file_location("tiny_world_of_training", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def setting():
    """Networks, and clips of 17 frames as a released network would see them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = build_vae(TINY_VAE).eval()
        for parameter in vae.parameters():
            parameter.data.normal_(std=0.1)
    dit = build_dit(replace(TINY, layout=LAYOUT), generator=torch.Generator().manual_seed(0))
    world = tiny_world()
    networks = ReleasedNetworks(dit, world.text, lambda frames: torch.cat([world.image(f[None]) for f in frames]))
    config = ChunkConfig(num_chunks=2, context_latents=None, memory_drop=0.0)
    maker = ChunkMaker(vae, dit.config.history_layout, REFERENCE, config)
    clip = scene_clip(0, "wander", maker.num_frames, *SIZE, SceneLook(kind="room", supersample=1))
    clips = Clips(
        frames=clip.frames[None].permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
        depth_m=clip.depth_m[None],
        world_to_cam=clip.cameras.world_to_cam[None].float(),
        intrinsics=clip.cameras.intrinsics[None].float(),
        captions=caption_bytes(["a room"]),
    )
    return networks, maker, clips


def test_two_steps_move_the_released_network(setting, tmp_path):
    networks, maker, clips = setting
    latents, draw = maker.encode(clips.frames), torch.Generator().manual_seed(0)
    flow, rollout = FlowConfig(), maker.rollout

    def predict(rows):
        return one_step_prediction(networks, rows, flow, rollout, draw)

    rows = maker.self_augmented(clips, latents, 1, predict, draw)
    before = networks.dit.head.head.weight.clone()
    result = train(
        networks,
        lambda module, step: flow_loss(module, rows, flow, rollout, torch.Generator().manual_seed(step)),
        LoopConfig(max_steps=2, log_every=1, warmup_steps=1),
        TrainingRun(out_dir=tmp_path),
    )
    assert result.step == 2
    assert not torch.equal(before, networks.dit.head.head.weight)
    assert all(name.startswith("dit.") for name in result.ema)
