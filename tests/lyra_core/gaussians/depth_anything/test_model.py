import re
from itertools import chain
from pathlib import Path

import pytest
import torch

from lyra_core.errors import DepthError, FrameError, ReconstructionError, StateDictError
from lyra_core.gaussians.depth_anything.config import (
    PRESETS,
    DepthAnythingConfig,
    NestedConfig,
)
from lyra_core.gaussians.depth_anything.model import (
    DepthAnything3,
    InferenceOptions,
    NestedDepthAnything3,
    Prediction,
    build_model,
    metric_scale,
    random_state,
    strided,
)


def listed_keys(path: Path) -> dict[str, str]:
    """Lines "name shape", where {0-3,7} in a name stands for five names."""
    found = {}
    for line in path.read_text().splitlines():
        name, shape = line.split(" ", 1)
        braces = re.search(r"\{(.+)\}", name)
        if braces is None:
            found[name] = shape
            continue
        spans = [[int(x) for x in span.split("-")] for span in braces.group(1).split(",")]
        for i in chain.from_iterable(range(span[0], span[-1] + 1) for span in spans):
            found[name.replace(braces.group(0), str(i))] = shape
    return found


@pytest.mark.parametrize(
    ("preset", "tensors"),
    [
        ("da3-small", 443),
        ("da3-base", 443),
        ("da3-large", 643),
        ("da3metric-large", 406),
        ("da3nested-giant-large", 1383),
    ],
)
def test_golden_state_dicts_of_every_release(released_dir: Path, preset: str, tensors: int) -> None:
    wanted = listed_keys(released_dir / "da3_keys" / f"{preset}.txt")
    assert len(wanted) == tensors
    config = PRESETS[preset]
    with torch.device("meta"):
        nested = isinstance(config, NestedConfig)
        model = NestedDepthAnything3(config) if nested else DepthAnything3(config)
    assert {k: str(tuple(t.shape)) for k, t in model.state_dict().items()} == wanted


def test_building_takes_the_tensors_as_they_are(tiny_config: DepthAnythingConfig) -> None:
    state = random_state(tiny_config, torch.Generator().manual_seed(0))
    prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
    model = build_model(tiny_config, prefixed)
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == state[name].data_ptr()
    assert not model.training


def test_wrong_weights_are_all_listed(tiny_config: DepthAnythingConfig) -> None:
    state = random_state(tiny_config, torch.Generator().manual_seed(0))
    del state["head.norm.bias"]
    state["stranger"] = torch.zeros(1)
    state["cam_dec.fc_t.bias"] = torch.zeros(5)
    with pytest.raises(StateDictError) as caught:
        build_model(tiny_config, state)
    message = str(caught.value)
    assert "3 problems" in message
    for part in ("missing head.norm.bias", "unexpected stranger", "wanted (3,), found (5,)"):
        assert part in message


@torch.no_grad()
def test_same_input_same_bits(tiny_nested: NestedDepthAnything3) -> None:
    images = torch.randn(4, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    options = InferenceOptions(gaussian_stride=2, with_rays=True)
    torch.rand(5)  # moves the global generator, which nothing here may read
    first = tiny_nested(images, options=options)
    torch.rand(7)
    second = tiny_nested(images, options=options)
    assert torch.equal(first.depth, second.depth)
    assert torch.equal(first.gaussians().means, second.gaussians().means)


@pytest.mark.parametrize("stride", [1, 2, 7])
@pytest.mark.parametrize("per_slice", [1, 3, 8])
@torch.no_grad()
def test_slices_change_memory_not_results(tiny_model: DepthAnything3, stride: int, per_slice: int) -> None:
    images = torch.randn(5, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    whole = tiny_model(images, options=InferenceOptions(gaussian_stride=stride, views_per_slice=5))
    parts = tiny_model(images, options=InferenceOptions(gaussian_stride=stride, views_per_slice=per_slice))
    torch.testing.assert_close(parts.depth, whole.depth)
    torch.testing.assert_close(parts.gaussian_maps.raw, whole.gaussian_maps.raw)
    assert whole.gaussian_maps.opacity.shape == (5, 42 // stride, 56 // stride)
    expected = whole.depth[:, ::stride, ::stride]
    torch.testing.assert_close(whole.gaussian_maps.depth, expected)


@torch.no_grad()
def test_scaling_a_scene_scales_its_gaussians(tiny_model: DepthAnything3) -> None:
    images = torch.randn(3, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    scene = tiny_model(images, options=InferenceOptions(gaussian_stride=2))
    before, after = scene.gaussians(), scene.scaled(3.0).gaussians()
    torch.testing.assert_close(after.means, 3.0 * before.means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.scales, 3.0 * before.scales, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(after.quats, before.quats)
    assert torch.equal(after.sh, before.sh)


@torch.no_grad()
def test_gradients_reach_every_trained_part(tiny_model: DepthAnything3) -> None:
    images = torch.randn(3, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        w2c = torch.eye(4).repeat(3, 1, 1)
        k = torch.tensor([[40.0, 0, 21], [0, 40, 21], [0, 0, 1]]).repeat(3, 1, 1)
        out = tiny_model(images, w2c, k, InferenceOptions(gaussian_stride=2, with_rays=True))
        loss = out.depth.mean() + out.confidence.mean() + out.rays.mean()
        loss = loss + out.ray_confidence.mean() + out.world_to_cam.sum() + out.intrinsics.sum()
        loss = loss + sum(t.sum() for t in (out.gaussian_maps.raw, out.gaussian_maps.opacity))
        names = [n for n, _ in tiny_model.named_parameters()]
        grads = torch.autograd.grad(loss, list(tiny_model.parameters()), allow_unused=True)
    unused = {n for n, g in zip(names, grads, strict=True) if g is None}
    # Ray levels 0 to 2 are never read; with known cameras the learned camera tokens are not either.
    expected = {n for n in names if re.search(r"_aux\.[012]\.", n)} | {n for n in names if n.endswith("camera_token")}
    assert unused == expected


def solid(depth: torch.Tensor, **changes: object) -> Prediction:
    k = torch.tensor([[600.0, 0, 20], [0, 600, 20], [0, 0, 1]]).repeat(len(depth), 1, 1)
    fields = {
        "depth": depth,
        "confidence": torch.full_like(depth, 2.0),
        "sky": torch.zeros_like(depth, dtype=torch.bool),
        "intrinsics": k,
    }
    return Prediction(**{**fields, **changes})


def test_metric_scale_is_least_squares_at_the_focal_length() -> None:
    depth = 1.0 + torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(0))
    assert metric_scale(solid(depth), solid(0.7 * depth)) == pytest.approx(1.4)  # 600 / 300


def test_metric_scale_needs_something_solid() -> None:
    depth = torch.ones(1, 40, 40)
    with pytest.raises(DepthError, match="not sky"):
        metric_scale(solid(depth), solid(depth, sky=torch.ones(1, 40, 40, dtype=torch.bool)))
    with pytest.raises(DepthError, match="confident pixels"):
        metric_scale(solid(depth * torch.nan), solid(depth))
    with pytest.raises(DepthError, match="confident pixels"):
        metric_scale(solid(depth), solid(depth * 0.0))


def test_strided_samples_span_large_maps() -> None:
    values = torch.arange(1_000_000, dtype=torch.float32)
    sample = strided(values)
    assert 90_000 <= len(sample) <= 100_000
    assert int(sample[-1]) > 999_000
    assert torch.equal(strided(values[:7]), values[:7])


@torch.no_grad()
def test_bad_input_is_named(tiny_model: DepthAnything3, tiny_nested: NestedDepthAnything3) -> None:
    images = torch.zeros(2, 3, 42, 42)
    cameras = torch.eye(4).repeat(2, 1, 1)
    with pytest.raises(FrameError, match="multiples of 14"):
        tiny_model(torch.zeros(1, 3, 40, 42))
    with pytest.raises(ReconstructionError, match="only one of them"):
        tiny_model(images, cameras)
    with pytest.raises(ReconstructionError, match="as many cameras"):
        tiny_model(images, cameras[:1], torch.eye(3)[None])
    with pytest.raises(ReconstructionError, match="takes no cameras"):
        tiny_nested.da3_metric(images, cameras, torch.eye(3).repeat(2, 1, 1))
    with pytest.raises(ReconstructionError, match="without a Gaussian head"):
        tiny_nested.da3_metric(images, options=InferenceOptions(gaussian_stride=2))
    with pytest.raises(ReconstructionError, match="stride must divide"):
        tiny_model(images, options=InferenceOptions(gaussian_stride=4))
    with pytest.raises(ReconstructionError, match="no Gaussian maps"):
        tiny_model(images).gaussians()
