"""A recorded depth step gives the losses and gradients of the launched one, before and after the weights move."""

import pytest
import torch

from lyra_core.mini.depth import TINY_REFINED_DEPTH
from lyra_core.training.cuda_graph import CudaGraphStep
from lyra_core.training.depth import DepthBatch, batch_losses, build_mini_depth

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def batch(seed: int, views: int) -> DepthBatch:
    draw = torch.Generator("cuda").manual_seed(seed)
    poses = torch.eye(4, device="cuda").repeat(2, views, 1, 1)
    poses[..., 0, 3] = -0.2 * torch.arange(views, device="cuda")
    K = torch.tensor([[50.0, 0.0, 28.0], [0.0, 50.0, 16.0], [0.0, 0.0, 1.0]], device="cuda")
    return DepthBatch(
        images=torch.rand(2, views, 3, 32, 56, generator=draw, device="cuda"),
        depth_m=0.5 + 3.0 * torch.rand(2, views, 32, 56, generator=draw, device="cuda"),
        intrinsics=K.expand(2, views, 3, 3).contiguous(),
        poses=poses,
        unit_m=torch.full((2,), 2.0, device="cuda"),
    )


@pytest.mark.parametrize("is_single", [False, True])
def test_recorded_steps_are_the_launched_ones(is_single: bool):
    model = build_mini_depth(TINY_REFINED_DEPTH, 0).cuda()
    parameters = list(model.parameters())
    views = 1 if is_single else 3
    with torch.autocast("cuda", torch.bfloat16):
        recorded = CudaGraphStep(lambda given: batch_losses(model, is_single, given), parameters, batch(0, views))
    for seed in (1, 2):
        given = batch(seed, views)
        found = {name: float(value) for name, value in recorded(given).items()}
        gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            plain = batch_losses(model, is_single, given)
        plain["loss"].backward()
        assert found == pytest.approx({name: float(value.detach()) for name, value in plain.items()}, rel=2e-2)
        for ours, parameter in zip(gradients, parameters, strict=True):
            assert (ours is None) == (parameter.grad is None)
            if ours is not None:
                assert torch.allclose(ours, parameter.grad, rtol=0.1, atol=0.05 * float(parameter.grad.abs().max()))
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(1.05)  # a recorded copy of the weights would not follow
        model.zero_grad(set_to_none=True)
