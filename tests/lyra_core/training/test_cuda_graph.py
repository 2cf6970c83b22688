"""A step replayed from a CUDA graph gives the losses and gradients of the plain one, whatever the weights are then."""

from dataclasses import fields, replace

import pytest
import torch

from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.networks import build_mini_networks
from lyra_core.training.cuda_graph import CudaGraphStep
from lyra_core.training.flow import FlowBatch, flow_losses, random_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def batch(seed, config):
    generator = torch.Generator("cuda").manual_seed(seed)
    inputs = random_inputs(config, 2, 4, 8, generator)
    shape = (2, config.latent_channels, config.history_layout.num_generated, 4, 8)

    def draw(*size):
        return torch.randn(*size, generator=generator, device="cuda")

    return FlowBatch(
        noisy=draw(*shape),
        timestep=torch.rand(2, generator=generator, device="cuda") * 1000,
        velocity=draw(*shape),
        weight=torch.rand(shape[0], *shape[2:], generator=generator, device="cuda"),
        holes=torch.rand(shape[0], *shape[2:], generator=generator, device="cuda"),
        history=inputs.history,
        condition=inputs.condition,
        rays=inputs.rays,
        correspondence=inputs.correspondence,
        captions=torch.randint(256, (2, 96), generator=generator, device="cuda").to(torch.uint8),
        last_frames=draw(2, 3, 32, 64),
    )


def test_recorded_steps_are_the_plain_ones():
    config = replace(MINI_DIT, layout="f1k1f4s2f1s1f2k2f1k1_g2", num_layers=2)
    networks = build_mini_networks(config, 0, "cuda")
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.02)  # zero heads and gates would hide everything
    parameters = list(networks.parameters())
    recorded = CudaGraphStep(lambda given: flow_losses(networks, given), parameters, batch(0, config))
    for seed in (1, 2):
        given = batch(seed, config)
        assert {f.name for f in fields(given)} == set(recorded.names)
        found = {name: float(value) for name, value in recorded(given).items()}
        gradients = [p.grad.clone() for p in parameters]
        for p in parameters:
            p.grad = None
        plain = flow_losses(networks, given)
        plain["loss"].backward()
        assert found == pytest.approx({name: float(value) for name, value in plain.items()}, rel=1e-4)
        for ours, p in zip(gradients, parameters, strict=True):
            torch.testing.assert_close(ours, p.grad, rtol=1e-3, atol=1e-6)
            p.grad = None
        with torch.no_grad():
            for p in parameters:
                p.mul_(1.01)
