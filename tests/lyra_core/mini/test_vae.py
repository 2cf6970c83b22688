"""The small autoencoder has the big one's interface: streaming equals the whole, and the past is all it sees."""

import inspect

import pytest
import torch

from lyra_core.errors import FrameError
from lyra_core.mini.vae import MINI_VAE, TINY_MINI_VAE, MiniVAE, build_mini_vae
from lyra_core.video.vae.layers import CausalCache
from lyra_core.video.vae.network import VAE


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    net = build_mini_vae(TINY_MINI_VAE)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 3))
        net.latent_mean.copy_(torch.linspace(-1, 1, 16))
        net.latent_std.copy_(torch.linspace(0.5, 2, 16))
    return net.eval()


@pytest.fixture(scope="module")
def video():
    return torch.rand(2, 3, 13, 24, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_and_size(model, video):
    latents = model.encode(video)
    assert latents.shape == (2, 16, 4, 3, 5)
    assert model.decode(latents).shape == video.shape
    with torch.device("meta"):
        count = sum(p.numel() for p in MiniVAE(MINI_VAE).parameters())
    assert 3.6e6 < count < 3.9e6  # of 40 MB for all networks


@torch.no_grad()
def test_streaming_equals_the_whole(model, video):
    whole = model.encode(video)
    cache = CausalCache()
    parts = [model.encode(part, cache) for part in (video[:, :, :1], video[:, :, 1:9], video[:, :, 9:])]
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=1e-5)
    frames = model.decode(whole)
    cache = CausalCache()
    parts = [model.decode(part, cache) for part in (whole[:, :, :1], whole[:, :, 1:2], whole[:, :, 2:])]
    torch.testing.assert_close(torch.cat(parts, 2), frames, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.decode(whole, latents_per_window=1), frames, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode(video, latents_per_window=1), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_cache_copies_are_independent(model, video):
    latents = model.encode(video)
    cache = CausalCache()
    model.decode(latents[:, :, :2], cache)
    twin = cache.copy()
    first = model.decode(latents[:, :, 2:3], cache)
    assert torch.equal(model.decode(latents[:, :, 2:3], twin), first)
    assert not torch.equal(model.decode(latents[:, :, 2:3], cache), first)


@torch.no_grad()
def test_nothing_looks_ahead(model, video):
    changed = video.clone()
    changed[:, :, 9:] = 0
    a, b = model.encode(video), model.encode(changed)
    assert torch.equal(a[:, :, :3], b[:, :, :3])
    assert not torch.equal(a[:, :, 3], b[:, :, 3])
    latents = a.clone()
    latents[:, :, 2] = 0
    frames, other = model.decode(a), model.decode(latents)
    torch.testing.assert_close(frames[:, :, :5], other[:, :, :5], rtol=0, atol=1e-6)
    assert not torch.allclose(frames[:, :, 5:9], other[:, :, 5:9])
    # the decoder also sees the previous latent
    assert not torch.allclose(frames[:, :, 9:], other[:, :, 9:])


@torch.no_grad()
def test_normalised_latents_decode_to_what_raw_ones_do(model, video):
    mean, _ = model.posterior(video)
    latents = model.encode(video)
    column = (slice(None), None, None, None)
    torch.testing.assert_close(
        latents * model.latent_std[column] + model.latent_mean[column], mean, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(model.decode(latents), model.reconstruct(mean), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_interface_is_that_of_the_big_one(name):
    small, big = (inspect.signature(getattr(cls, name)).parameters for cls in (MiniVAE, VAE))
    assert [(p.name, p.kind) for p in small.values()] == [(p.name, p.kind) for p in big.values()]
    for attribute in ("spatial_factor", "temporal_factor", "latent_channels"):
        assert hasattr(MINI_VAE, attribute)


@pytest.mark.parametrize("shape", [(1, 3, 6, 24, 40), (1, 3, 5, 24, 36)])
def test_wrong_videos_are_refused(model, shape):
    with pytest.raises(FrameError):
        model.encode(torch.zeros(shape))
