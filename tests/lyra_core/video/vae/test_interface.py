"""The released autoencoder and mini's give the rollout the same interface."""

import pytest

from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.video.vae.interface import AutoencoderConfig, VideoAutoencoder
from lyra_core.video.vae.network import TINY_VAE, build_vae


@pytest.mark.parametrize(
    "build", [lambda: build_vae(TINY_VAE), lambda: build_mini_vae(TINY_MINI_VAE)], ids=["wan", "mini"]
)
def test_both_autoencoders_have_what_the_rollout_asks_for(build):
    network = build()
    assert isinstance(network, VideoAutoencoder)
    assert isinstance(network.config, AutoencoderConfig)
    assert network.config.temporal_factor in (4, 8)
    assert network.config.spatial_factor in (8, 16)
