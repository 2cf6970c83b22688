"""Small Depth Anything 3 networks with random weights, which run in milliseconds on a CPU."""

from collections.abc import Iterator

import pytest
import torch

from lyra_core.gaussians.depth_anything.config import (
    BackboneConfig,
    DepthAnythingConfig,
    HeadConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.model import (
    DepthAnything3,
    NestedDepthAnything3,
    build_model,
    random_state,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small lose more to waiting for threads than they gain, above all on a busy
    machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


HEAD = HeadConfig(features=8, out_channels=(4, 8, 8, 8))


@pytest.fixture(scope="session")
def tiny_config() -> DepthAnythingConfig:
    return DepthAnythingConfig(
        backbone=BackboneConfig(dim=32, depth=6, num_heads=2, out_layers=(2, 3, 4, 5), alt_start=2, pos_grid=3),
        head=HEAD,
        camera_heads=4,
        gaussian_head=True,
    )


@pytest.fixture(scope="session")
def tiny_nested_config(tiny_config: DepthAnythingConfig) -> NestedConfig:
    metric = DepthAnythingConfig(
        backbone=BackboneConfig(dim=32, depth=4, num_heads=2, out_layers=(0, 1, 2, 3), alt_start=None, pos_grid=3),
        head=HEAD,
    )
    return NestedConfig(any_view=tiny_config, metric=metric)


def with_plausible_cameras(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for name, tensor in state.items():
        if name.endswith("fc_fov.0.bias"):
            tensor.fill_(1.0)
        if name.endswith("fc_qvec.bias"):
            tensor.copy_(torch.tensor([0.0, 0.0, 0.0, 4.0]))
    return state


@pytest.fixture(scope="session")
def tiny_model(tiny_config: DepthAnythingConfig) -> DepthAnything3:
    state = random_state(tiny_config, torch.Generator().manual_seed(0))
    model = build_model(tiny_config, with_plausible_cameras(state))
    assert isinstance(model, DepthAnything3)
    return model


@pytest.fixture(scope="session")
def tiny_nested(tiny_nested_config: NestedConfig) -> NestedDepthAnything3:
    state = with_plausible_cameras(random_state(tiny_nested_config, torch.Generator().manual_seed(1)))
    state["da3_metric.head.scratch.sky_output_conv2.2.bias"].fill_(0.25)
    model = build_model(tiny_nested_config, state)
    assert isinstance(model, NestedDepthAnything3)
    return model
