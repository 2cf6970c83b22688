"""What test_exchange runs in several processes: `share_processes.py OUT`; the first one writes what all found.

`share_processes.py team OUT` starts followers of its own.
"""

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from lyra_core.errors import RecipeError
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.exchange import Share
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.dit.speed import PROFILES, apply_speed
from lyra_core.video.dit.team import lead
from lyra_core.video.sampler import Guidance, guided_velocity

# 5 heads and 46 + 48 tokens: neither 2 nor 3 processes divide all of them
CONFIG = replace(
    TINY,
    dim=80,
    ffn_dim=128,
    num_heads=5,
    num_layers=3,
    text_dim=32,
    image_dim=32,
    layout="f1k1f4s2f1s1f4k4f2k2f1k1_g2",
)


def drawn():
    """A network with random weights, the conditions of a chunk and its noisy latents, a batch of two."""
    draw = torch.Generator().manual_seed(0)
    model = build_dit(CONFIG, generator=draw).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.08, generator=draw)
    layout = CONFIG.history_layout

    def random(channels, slots):
        return torch.randn(2, channels, slots, 8, 12, generator=draw)

    inputs = ChunkInputs(
        history=random(CONFIG.latent_channels, layout.num_history),
        condition=random(CONFIG.condition_channels, layout.num_slots),
        rays=random(CONFIG.ray_channels, layout.num_slots),
        correspondence=random(CONFIG.correspondence_channels, layout.num_slots).tanh(),
        text=torch.randn(2, 7, 32, generator=draw),
        image=torch.randn(2, 5, 32, generator=draw),
    )
    return model, inputs, random(CONFIG.latent_channels, layout.num_generated)


def one_item(inputs):
    fields = ("history", "condition", "rays", "correspondence", "text", "image")
    return replace(inputs, **{name: getattr(inputs, name)[:1] for name in fields})


@torch.no_grad()
def main(out):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    model, inputs, latents = drawn()
    errors = {}
    for name in ("plain", "fast", "fastest"):
        if name != "plain":
            apply_speed(model, PROFILES[name], is_emulated=True)
        for drops in (False, True):
            model.drops_history = drops
            for count, given in ((2, inputs), (1, one_item(inputs))):
                step = (latents[:count], torch.tensor([700.0] * count))
                model.share = None
                wanted = model(*step, model.prepare_context(given))
                model.share = Share.of()
                for store in ("squeezed", "full"):
                    found = model(*step, model.prepare_context(given, store=store))
                    key = f"{name} drops={drops} batch={count} {store}"
                    errors[key] = ((found - wanted).norm() / wanted.norm()).item()
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, errors)
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(gathered))
    dist.destroy_process_group()


def network(device):
    return drawn()[0].to(device)


@torch.no_grad()
def with_followers(out):
    """A leader and a follower, called as a rollout calls a network; two chunks."""
    torch.set_num_threads(1)
    alone, inputs, latents = drawn()
    team = lead(network, ["cpu"] * 2)
    errors = {}
    for chunk in range(2):
        given, step = one_item(inputs), (latents[:1] + chunk, torch.tensor([700.0]))
        away = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(chunk))
        pairs = [(net, net.prepare_context(given), net.prepare_text(away)) for net in (alone, team)]
        for name, guidance in (("plain", Guidance(scale=1.0)), ("guided", Guidance(scale=5.0, is_batched=True))):
            wanted, found = (guided_velocity(*pair, guidance)(*step) for pair in pairs)
            errors[f"{name} {chunk}"] = ((found - wanted).norm() / wanted.norm()).item()
    try:
        team(*step, pairs[0][1])
    except RecipeError as error:
        errors["foreign"] = str(error)
    team.team.close()
    errors["ended"] = [process.exitcode for process in team.team.processes]
    Path(out).write_text(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else with_followers(sys.argv[2])
