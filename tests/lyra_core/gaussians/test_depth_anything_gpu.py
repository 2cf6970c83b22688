"""Depth Anything 3 on CUDA agrees with the CPU, in fp32 closely and with the bfloat16 backbone
loosely.
"""

import pytest
import torch

from lyra_core.gaussians.depth_anything.config import (
    BackboneConfig,
    DepthAnythingConfig,
    HeadConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.model import (
    InferenceOptions,
    NestedDepthAnything3,
    build_model,
    random_state,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
HEAD = HeadConfig(features=32, out_channels=(16, 32, 32, 32))


def tiny_nested() -> NestedDepthAnything3:
    giant = DepthAnythingConfig(
        backbone=BackboneConfig(dim=128, depth=8, num_heads=2, out_layers=(4, 5, 6, 7), alt_start=3, swiglu=True),
        head=HEAD,
        gaussian_head=True,
    )
    metric = DepthAnythingConfig(
        backbone=BackboneConfig(dim=64, depth=4, num_heads=1, out_layers=(0, 1, 2, 3), alt_start=None),
        head=HEAD,
    )
    config = NestedConfig(any_view=giant, metric=metric)
    state = random_state(config, torch.Generator().manual_seed(0))
    for name, tensor in state.items():
        if name.endswith("gamma"):
            tensor.fill_(0.3)
        if name.endswith("fc_fov.0.bias"):
            tensor.fill_(1.0)
    model = build_model(config, state)
    assert isinstance(model, NestedDepthAnything3)
    return model


@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 2e-3), (True, 0.15)])
@pytest.mark.parametrize("views", [1, 9])
@torch.no_grad()
def test_cuda_agrees_with_the_processor(autocast: bool, tolerance: float, views: int) -> None:
    model = tiny_nested()
    images = torch.randn(views, 3, 84, 112, generator=torch.Generator().manual_seed(1))
    options = InferenceOptions(gaussian_stride=2, with_rays=True, autocast=autocast)
    w2c = torch.eye(4).repeat(views, 1, 1)
    w2c[:, 0, 3] = -torch.arange(views) / max(1, views - 1)
    k = torch.tensor([[100.0, 0, 56], [0, 100, 42], [0, 0, 1]]).repeat(views, 1, 1)
    # The TF32 default of convolutions keeps ten bits of mantissa; this compares in full fp32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = model(images, w2c, k, options)
        found = model.cuda()(images.cuda(), w2c.cuda(), k.cuda(), options)
    assert found.depth.dtype == torch.float32

    def deviation(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a.cpu() - b).abs() / (1.0 + b.abs())).median())

    pairs = [
        (found.depth, expected.depth),
        (found.confidence, expected.confidence),
        (found.rays, expected.rays),
        (found.world_to_cam, expected.world_to_cam),
        (found.gaussian_maps.raw, expected.gaussian_maps.raw),
        (found.gaussians().means, expected.gaussians().means),
    ]
    assert max(deviation(a, b) for a, b in pairs) < tolerance


@torch.no_grad()
def test_cuda_repeats_itself() -> None:
    model = tiny_nested().cuda()
    images = torch.randn(5, 3, 84, 112, generator=torch.Generator().manual_seed(1)).cuda()
    options = InferenceOptions(gaussian_stride=2)
    first, second = (model(images, options=options) for _ in range(2))
    assert torch.equal(first.depth, second.depth)
    assert torch.equal(first.gaussians().means, second.gaussians().means)
