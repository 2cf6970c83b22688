import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lyra_core.errors import FrameError, RecipeError
from lyra_core.video.vae.layers import CausalCache
from lyra_core.video.vae.network import TINY_VAE, WAN21_VAE, VAEConfig, build_vae

REPOSITORY_GOLDEN = Path(__file__).resolve().parents[3] / "golden"  # lists of names never vary

SMALL = VAEConfig(
    dim=4,
    latent_channels=2,
    multipliers=(1, 2, 2),
    num_res_blocks=1,
    temporal_downsample=(True, True),
    latent_mean=(0.1, -0.2),
    latent_std=(1.5, 0.5),
)


@pytest.fixture(scope="module")
def golden(golden_dir):
    tensors = load_file(golden_dir / "vae_tiny.safetensors")
    if "io.video" not in tensors:
        draws = np.random.RandomState(7).uniform(-1, 1, tuple(tensors["io.recon"].shape))
        tensors["io.video"] = torch.from_numpy(draws.astype(np.float32))
    return tensors


@pytest.fixture(scope="module")
def vae(golden_dir, golden):
    with safe_open(golden_dir / "vae_tiny.safetensors", "pt") as file:
        metadata = {key: json.loads(text) for key, text in file.metadata().items()}
    cfg = metadata["cfg"]
    config = VAEConfig(
        dim=cfg["dim"],
        latent_channels=cfg["z_dim"],
        multipliers=tuple(cfg["dim_mult"]),
        num_res_blocks=cfg["num_res_blocks"],
        temporal_downsample=tuple(cfg["temperal_downsample"]),
        latent_mean=tuple(metadata["mean"]),
        latent_std=tuple(metadata["std"]),
    )
    model = build_vae(config)
    weights = {k.removeprefix("sd."): v for k, v in golden.items() if k.startswith("sd.")}
    model.load_state_dict({key: value.float() for key, value in weights.items()})
    return model.requires_grad_(False)


@pytest.mark.parametrize("latents_per_window", [1, 3])
def test_golden_encode(vae, golden, assert_close, latents_per_window):
    features = []
    hook = vae.encoder.register_forward_hook(lambda _, __, output: features.append(output))
    latents = vae.encode(golden["io.video"], latents_per_window=latents_per_window)
    hook.remove()
    assert_close(latents, golden["io.latent"])
    assert_close(torch.cat(features, dim=2), golden["io.enc_head_feats"])


def test_golden_encode_one_frame(vae, golden, assert_close):
    assert_close(vae.encode(golden["io.video"][:, :, :1]), golden["io.latent_f1"])


def test_golden_encode_streamed(vae, golden, assert_close):
    cache, frames = CausalCache(), golden["io.video"].shape[2]
    cut = 1 + vae.config.temporal_factor * ((frames - 1) // vae.config.temporal_factor // 2)
    parts = [vae.encode(part, cache) for part in golden["io.video"].tensor_split([cut], dim=2)]
    wanted = golden.get("io.latent_streamed", golden["io.latent"])
    assert_close(torch.cat(parts, dim=2), wanted)


@pytest.mark.parametrize("latents_per_window", [1, 2])
def test_golden_decode(vae, golden, assert_close, latents_per_window):
    recon = vae.decode(golden["io.latent"], latents_per_window=latents_per_window)
    assert_close(recon, golden["io.recon"])


def test_golden_decode_streamed(vae, golden, assert_close):
    cache = CausalCache()
    parts = [vae.decode(latent, cache) for latent in golden["io.latent"].split(1, dim=2)]
    assert_close(torch.cat(parts, dim=2), golden.get("io.recon_streamed", golden["io.recon"]))


def test_golden_bf16(vae, golden, assert_close):
    low = build_vae(vae.config, dtype=torch.bfloat16)
    low.load_state_dict(vae.state_dict())
    with torch.no_grad():
        latents = low.encode(golden["io.video"][:, :, :5])
        assert latents.dtype == torch.bfloat16
        assert_close(latents, golden["io.latent"][:, :, :2], 3e-2)


def test_golden_full_size_names_and_shapes():
    listed = json.loads((REPOSITORY_GOLDEN / "state_dict_vae.json").read_text())
    state = build_vae(WAN21_VAE, device="meta").state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == listed["keys"]
    assert sum(value.numel() for value in state.values()) == listed["total_params"] == 126_892_531


@torch.no_grad()
def test_streams_of_any_cut_equal_the_whole():
    generator = torch.Generator().manual_seed(0)
    vae = build_vae(SMALL)
    video = torch.rand(2, 3, 13, 4, 8, generator=generator) * 2 - 1
    whole = vae.encode(video)
    assert whole.shape == (2, 2, 4, 1, 2)
    for cut in (1, 9):
        cache = CausalCache()
        parts = [vae.encode(part, cache) for part in video.tensor_split([cut], dim=2)]
        assert torch.allclose(torch.cat(parts, dim=2), whole, atol=1e-5)
    recon = vae.decode(whole)
    assert recon.shape == video.shape
    for cut in (1, 2):
        cache = CausalCache()
        parts = [vae.decode(part, cache) for part in whole.tensor_split([cut], dim=2)]
        assert torch.allclose(torch.cat(parts, dim=2), recon, atol=1e-5)


@torch.no_grad()
def test_later_frames_do_not_reach_earlier_latents():
    vae, video = build_vae(SMALL), torch.rand(1, 3, 9, 8, 8)
    changed = video.clone()
    changed[:, :, 5:] = 0
    assert torch.equal(vae.encode(video)[:, :, :2], vae.encode(changed)[:, :, :2])
    assert not torch.equal(vae.encode(video)[:, :, 2:], vae.encode(changed)[:, :, 2:])


@torch.no_grad()
def test_a_copied_cache_is_independent():
    vae, video = build_vae(SMALL), torch.rand(1, 3, 9, 8, 8)
    cache = CausalCache()
    assert cache.is_fresh
    vae.encode(video[:, :, :5], cache)
    twin, moved = cache.copy(), cache.to("cpu")
    first = vae.encode(video[:, :, 5:], cache)
    assert torch.equal(vae.encode(video[:, :, 5:], twin), first)
    assert torch.equal(vae.encode(video[:, :, 5:], moved), first)


def test_autoencoder_can_be_trained():
    vae, video = build_vae(SMALL), torch.rand(1, 3, 5, 8, 8) * 2 - 1
    (vae.decode(vae.encode(video)) - video).square().mean().backward()
    without = [name for name, p in vae.named_parameters() if p.grad is None]
    assert not without


def test_wrong_frames_are_refused():
    vae = build_vae(SMALL)
    with pytest.raises(FrameError, match=r"1 \+ 4n frames, found 4"):
        vae.encode(torch.zeros(1, 3, 4, 8, 8))
    with pytest.raises(FrameError, match="multiples of 4, found 10x8"):
        vae.encode(torch.zeros(1, 3, 1, 8, 10))
    cache = CausalCache()
    vae.encode(torch.zeros(1, 3, 1, 8, 8), cache)
    with pytest.raises(FrameError, match="4n frames after the first window, found 5"):
        vae.encode(torch.zeros(1, 3, 5, 8, 8), cache)


def test_inconsistent_widths_are_refused():
    for change in ({"temporal_downsample": (True,)}, {"latent_mean": (0.0,)}):
        fields = {name: getattr(TINY_VAE, name) for name in VAEConfig.__dataclass_fields__}
        with pytest.raises(RecipeError):
            VAEConfig(**(fields | change))
