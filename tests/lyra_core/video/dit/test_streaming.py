"""Blocks that wait in host memory compute what resident ones compute, and leave nothing behind."""

import copy
from dataclasses import replace

import pytest
import torch

from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.dit.speed import PROFILES, apply_speed, stream_blocks

CONFIG = replace(TINY, dim=64, ffn_dim=128, num_layers=5, text_dim=32, image_dim=32, layout="f1k1f1s1f2k2_g2")


@pytest.fixture(scope="module")
def network():
    draw = torch.Generator().manual_seed(0)
    model = build_dit(CONFIG, generator=draw).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.08, generator=draw)
    return model


@pytest.fixture(scope="module")
def chunk():
    draw, layout = torch.Generator().manual_seed(1), CONFIG.history_layout

    def random(channels, slots):
        return torch.randn(1, channels, slots, 8, 12, generator=draw)

    inputs = ChunkInputs(
        history=random(CONFIG.latent_channels, layout.num_history),
        condition=random(CONFIG.condition_channels, layout.num_slots),
        rays=random(CONFIG.ray_channels, layout.num_slots),
        correspondence=random(CONFIG.correspondence_channels, layout.num_slots).tanh(),
        text=torch.randn(1, 7, 32, generator=draw),
        image=torch.randn(1, 5, 32, generator=draw),
    )
    return inputs, random(CONFIG.latent_channels, layout.num_generated)


def velocity(network, chunk, store="squeezed"):
    inputs, latents = chunk
    return network(latents, torch.tensor([700.0]), network.prepare_context(inputs, store=store))


@pytest.mark.parametrize("store", ["squeezed", "full"])
@pytest.mark.parametrize("profile", ["exact", "fastest"])
def test_streamed_blocks_change_no_bit(network, chunk, profile, store):
    resident = copy.deepcopy(network)
    apply_speed(resident, PROFILES[profile], is_emulated=True)
    streamed = copy.deepcopy(resident)
    stream_blocks(streamed)
    wanted = velocity(resident, chunk, store)
    for _ in range(2):
        assert torch.equal(velocity(streamed, chunk, store), wanted)


def test_a_pass_that_is_broken_off_does_not_spoil_the_next(network, chunk):
    streamed = copy.deepcopy(network)
    stream_blocks(streamed)
    wanted = velocity(network, chunk)
    turns = streamed.stream.in_turn()
    next(turns), next(turns)
    turns.close()
    assert torch.equal(velocity(streamed, chunk), wanted)


def test_what_waits_is_all_but_the_shared_half_of_an_encoder(network):
    streamed = copy.deepcopy(network)
    stream_blocks(streamed)
    kept = sum(block.buffer_encoder[0].weight.numel() for block in network.blocks)
    waiting = sum(parameter.numel() for parameter in network.blocks.parameters()) - kept
    assert waiting * 4 <= streamed.stream.num_bytes <= waiting * 4 + 256 * len(list(network.blocks.parameters()))
