"""What is trained as a LoRA is what the loader of LoRA files merges."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import ConfigError
from lyra_core.finetuning.lora import LoraConfig, add_lora, initialise_lora, lora_layers, save_lora
from lyra_core.training.flow import random_inputs
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.weights.lora import merge_loras, read_lora

CONFIG = replace(TINY, layout="f1k1f4s2f1s1f4k4f2k2f1k1_g2")


def network():
    dit, generator = build_dit(CONFIG), torch.Generator().manual_seed(3)
    for parameter in dit.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return dit


def velocity(dit):
    generator = torch.Generator().manual_seed(1)
    inputs = random_inputs(CONFIG, 1, 4, 6, generator)
    latents = torch.randn(1, 16, 2, 4, 6, generator=generator)
    return dit.forward_training(latents, torch.tensor([700.0]), inputs)


def test_a_fresh_change_changes_nothing():
    plain, dit = network(), network()
    assert add_lora(dit, LoraConfig(rank=4)) == 2 * (4 + 6 + 2)
    initialise_lora(dit, torch.Generator().manual_seed(0))
    assert torch.equal(velocity(dit), velocity(plain))
    trained = {name for name, parameter in dit.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 24
    assert all(".lora_" in name for name in trained)
    assert {name for name, _ in plain.named_parameters()} == {n for n, _ in dit.named_parameters()} - trained


@pytest.mark.parametrize("alpha", [None, 9.0])
def test_the_loader_merges_what_was_trained(alpha, tmp_path):
    dit, plain = network(), network()
    add_lora(dit, LoraConfig(rank=3, alpha=alpha))
    initialise_lora(dit, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([p for p in dit.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        velocity(dit).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    wanted = velocity(dit).detach()
    before = velocity(plain).detach()
    assert (wanted - before).abs().max() > 0.01
    save_lora(dit, tmp_path / "lora.safetensors")
    shapes = {name: tuple(parameter.shape) for name, parameter in plain.named_parameters()}
    lora = read_lora(load_file(str(tmp_path / "lora.safetensors")), shapes)
    assert {layer.scale for layer in lora.layers.values()} == {(alpha or 3.0) / 3}
    assert merge_loras(plain, [(lora, 1.0)]) == 24
    torch.testing.assert_close(velocity(plain).detach(), wanted, atol=1e-5, rtol=1e-4)


def test_targets_choose_layers():
    dit = network()
    add_lora(dit, LoraConfig(rank=2, targets=("blocks.1.self_attn.[qk]",)))
    assert [name for name, _ in lora_layers(dit)] == ["blocks.1.self_attn.q", "blocks.1.self_attn.k"]
    with pytest.raises(ConfigError, match="no linear layer matches nothing"):
        add_lora(network(), LoraConfig(targets=("nothing",)))
    with pytest.raises(ConfigError, match="rank 1 or more"):
        LoraConfig(rank=0)
