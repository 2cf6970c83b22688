"""A picture that stands still: the quick runs leave and give exactly what the plain runs do."""

import pytest
import torch

from lyra_core.video.vae.layers import CausalCache
from lyra_core.video.vae.network import TINY_VAE, build_vae
from lyra_core.video.vae.still import needed_windows


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(3)
    return build_vae(TINY_VAE).requires_grad_(False)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(4)) * 2 - 1


def all_entries(cache):
    return cache.entries(0, 1000)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_encode_still_gives_the_bits_of_encode(vae, image, count):
    plain, quick = CausalCache(), CausalCache()
    repeated = image[:, :, None].expand(-1, -1, 1 + 4 * (count - 1), -1, -1)
    wanted = vae.encode(repeated, plain)
    assert torch.equal(vae.encode_still(image, count, quick), wanted)
    assert all(torch.equal(a, b) for a, b in zip(all_entries(plain), all_entries(quick), strict=True))


def test_encode_still_stops_computing_what_stands_still(vae, image):
    calls = dict.fromkeys(("first", "last"), 0)
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
        for name, layer in (("first", vae.encoder.downsamples[0]), ("last", vae.encoder.head))
    ]
    vae.encode_still(image, 30, CausalCache())
    for hook in hooks:
        hook.remove()
    # The first block looks 6 frames back: settled in the third window, recognised in the fourth.
    assert calls["first"] <= 4
    assert calls["last"] > 20


@pytest.mark.parametrize("count", [1, 3, 25, 33])
def test_remember_leaves_the_cache_of_decode(vae, count):
    latents = torch.randn(1, 16, count, 2, 3, generator=torch.Generator().manual_seed(5))
    plain, quick = CausalCache(), CausalCache()
    vae.decode(latents, plain)
    vae.remember(latents, quick)
    assert len(all_entries(plain)) == len(all_entries(quick))
    assert all(torch.equal(a, b) for a, b in zip(all_entries(plain), all_entries(quick), strict=True))
    more = torch.randn(1, 16, 2, 2, 3)
    assert torch.equal(vae.decode(more, plain), vae.decode(more, quick))


def test_wide_layers_of_the_decoder_see_the_end_only(vae):
    needed = needed_windows(vae.decoder.layers, 100)
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] == 1
    assert needed[-4] == 4  # the first block at full size: three blocks of 4 frames, the head's 2, a window of 4
