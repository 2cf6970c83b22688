"""EfficientNet-Lite features: the published shapes, normalisation folded exactly, errors that name what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from lyra_core.errors import ConfigError, MissingExtraError, WeightsError
from lyra_core.extras import is_installed
from lyra_core.formats.image import open_image
from lyra_core.image_features import (
    NORM_EPSILON,
    PACKAGES,
    ImageFeatures,
    load_image_features,
    perceptual_distance,
    save_image_features,
)
from lyra_core.image_features import _folded as folded

SEEDS = Path(__file__).resolve().parents[2] / "examples" / "seeds"


def random_features(network: str = "lite0", levels: int = 4) -> ImageFeatures:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return ImageFeatures(network, levels).eval()


@pytest.mark.parametrize(("network", "parameters"), [("lite0", 4_652_008), ("lite1", 5_416_680)])
def test_it_has_the_published_size_and_strides(network, parameters):
    features = random_features(network)
    maps = features(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 24, 16, 24), (2, 40, 8, 12), (2, 112, 4, 6), (2, 320, 2, 3)]
    # published with a head (1,280 channels, 1,000 classes), and with a gain beside each bias
    head = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    named = features.named_parameters()
    assert sum(p.numel() * (2 if name.endswith("bias") else 1) for name, p in named) + head == parameters
    assert not any(p.requires_grad for p in features.parameters())


def test_odd_sizes_are_padded_as_tensorflow_pads():
    maps = random_features(levels=2)(torch.rand(1, 3, 33, 50))
    assert [tuple(m.shape[-2:]) for m in maps] == [(9, 13), (5, 7)]


def test_fewer_levels_are_the_same_maps():
    whole, part = random_features(), random_features(levels=2)
    part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
    images = torch.rand(1, 3, 32, 32)
    for a, b in zip(whole(images), part(images), strict=False):
        assert torch.equal(a, b)


def test_normalisation_is_folded_exactly():
    features = random_features(levels=1)
    generator = torch.Generator().manual_seed(0)
    convolution, norm = nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32, eps=NORM_EPSILON).eval()
    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        values.copy_(torch.rand(32, generator=generator) + 0.5)
    raw = {f"_conv_stem.{name}": value for name, value in convolution.state_dict().items()}
    raw |= {f"_bn0.{name}": value for name, value in norm.state_dict().items()}
    for name, value in features.state_dict().items():  # the other layers: any convolution, a norm that does nothing
        if not name.startswith("blocks") or not name.endswith("weight"):
            continue
        _, index, part, _ = name.split(".")
        raw[f"_blocks.{index}._{part}_conv.weight"] = value
        number = {"expand": 0, "depthwise": 1, "project": 2}[part]
        width = len(value)
        plain = {"weight": torch.ones(width), "bias": torch.zeros(width), "running_mean": torch.zeros(width)}
        plain["running_var"] = torch.full((width,), 1 - NORM_EPSILON)
        raw |= {f"_blocks.{index}._bn{number}.{key}": tensor for key, tensor in plain.items()}
    features.load_state_dict(folded(raw, features))
    x = torch.rand(1, 3, 32, 32, generator=generator)
    wanted = norm(convolution(functional.pad(x, (0, 1, 0, 1)))[..., ::2, ::2])
    assert torch.allclose(features.stem(x), wanted, atol=1e-5)


def test_distance_is_zero_for_equals_and_grows_with_blur():
    features = random_features(levels=3)
    image = torch.rand(2, 3, 64, 64)
    truth = features(image)
    little, much = (functional.avg_pool2d(image, k, 1, k // 2) for k in (3, 7))
    assert perceptual_distance(truth, truth).max() == 0
    assert (perceptual_distance(features(little), truth) < perceptual_distance(features(much), truth)).all()


def test_gradients_reach_the_images():
    features = random_features(levels=2)
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    perceptual_distance(features(image), features(torch.zeros(1, 3, 32, 32))).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_a_saved_file_serves_fewer_levels_too(tmp_path):
    features = random_features(levels=3)
    save_image_features(features, tmp_path / "lite0.safetensors")
    assert (tmp_path / "lite0.safetensors").stat().st_size < 1_600_000
    again = load_image_features(levels=2, path=tmp_path / "lite0.safetensors")
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(again(image)[1], features(image)[1], atol=5e-2, rtol=5e-2)
    with pytest.raises(WeightsError, match="does not fit lite0"):
        load_image_features(levels=4, path=tmp_path / "lite0.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        load_image_features(path=tmp_path / "other.safetensors")


def test_an_unknown_network_is_refused():
    with pytest.raises(ConfigError, match="lite7"):
        ImageFeatures("lite7")


@pytest.mark.skipif(is_installed(PACKAGES["lite0"]), reason="the package is here")
def test_the_missing_package_is_named():
    with pytest.raises(MissingExtraError, match=r"lyra-worlds\[train\]"):
        load_image_features()


@pytest.mark.skipif(not is_installed(PACKAGES["lite0"]), reason="needs the package of the weights, extra train")
def test_blur_is_farther_from_a_photograph_than_a_change_of_light():
    """What the weights are for; with random ones a change of light is the larger."""
    features = load_image_features(levels=3)
    image = open_image(SEEDS / "forest_stream.jpg", 224, 128).image.permute(2, 0, 1)[None].float() / 255
    blurred, lighter = functional.avg_pool2d(image, 5, 1, 2), (image * 1.15).clamp(0, 1)
    truth = features(image)
    assert perceptual_distance(features(lighter), truth) < 0.5 * perceptual_distance(features(blurred), truth)
