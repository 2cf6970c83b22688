"""Sharpening moves the decoder alone, by the gradient that its plain form has; latents stay the same bit for bit."""

import pytest
import torch
from torch.func import functional_call

from lyra_core.mini.vae import TINY_MINI_VAE
from lyra_core.training.frame_critics import CriticsConfig
from lyra_core.training.gan import SharpenConfig, Sharpening, sharpen_losses, sharpen_vae
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.run import TrainingRun
from lyra_core.training.vae import VaeTrainingConfig, initial_vae, reconstruction_loss, train_vae
from lyra_core.weights.ema_weights import WEIGHTS, load_weights

CONFIG = SharpenConfig(critics=CriticsConfig(dims=(8, 16, 16)), critic_first=2)


def config(steps):
    return VaeTrainingConfig(
        loop=LoopConfig(max_steps=steps, learning_rate=2e-3, warmup_steps=2, log_every=1),
        model=TINY_MINI_VAE,
        height=32,
        width=56,
        batch=2,
        num_scenes=2,
        num_held_out=2,
        textures_per_kind=1,
        texture_size=32,
        pool_clips=0,
        fresh_clips=2,
        supersample=1,
        max_speed=2,
    )


@pytest.fixture(scope="module")
def both():
    return Sharpening(initial_vae(config(1), torch.device("cpu")), CONFIG, 0)


@pytest.fixture(scope="module")
def video():
    return torch.rand(2, 3, 9, 32, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1


def gradients(module, loss):
    module.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_gradients_are_those_of_the_plain_sum(both, video):
    """The short form runs the decoder's graph once; the plain form adds losses and differentiates the sum."""
    noise = torch.zeros(2, 16, 3, 4, 7)
    short = gradients(both, sharpen_losses(both, video, noise, is_judged=True)["loss"])
    vae, critic = both.vae, both.critics.patch
    with torch.no_grad():
        latents = vae.posterior(video)[0]
    found = vae.reconstruct(latents)

    def groups(clip):
        return clip[:, :, 1:].unflatten(2, (2, 4)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3).flatten(0, 1)

    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    *features, verdict = functional_call(critic, frozen, (groups(found),))
    wanted = critic(groups(video))[:-1]
    matching = sum((a - b.detach()).abs().mean() for a, b in zip(features, wanted, strict=True))
    errors = reconstruction_loss(found, video)
    by_errors, by_verdict = (torch.autograd.grad(x, found, retain_graph=True)[0] for x in (errors, -verdict.mean()))
    share = CONFIG.critics.adversarial * by_errors[:, :, 1:].norm() / by_verdict.norm()  # of whole groups
    hinge = (1 - critic(groups(video))[-1]).relu().mean() + (1 + critic(groups(found.detach()))[-1]).relu().mean()
    plain = gradients(both, errors - share * verdict.mean() + CONFIG.critics.matching * matching + 0.5 * hinge)
    assert short.keys() == plain.keys()
    assert not any(name.startswith("vae.encoder") for name in short)
    assert any(name.startswith("critics.patch") for name in short)
    for name, value in plain.items():
        torch.testing.assert_close(short[name], value, rtol=1e-4, atol=1e-6)


def test_latents_stay(tmp_path, video):
    train_vae(config(2), TrainingRun(out_dir=tmp_path / "plain"))
    start = tmp_path / "plain" / WEIGHTS
    result = sharpen_vae(config(4), CONFIG, TrainingRun(out_dir=tmp_path / "sharp", start_from=start))
    assert ["matching" in row for row in result.metrics if "loss" in row] == [False, False, True, True]
    before, after = (initial_vae(config(1), torch.device("cpu")) for _ in range(2))
    load_weights(before, start, "vae")
    load_weights(after, tmp_path / "sharp" / WEIGHTS, "vae")
    assert torch.equal(before.encode(video), after.encode(video))
    assert not torch.equal(before.decoder.head.weight, after.decoder.head.weight)
    assert {"psnr_worlds", "sharpness_worlds"} <= result.metrics[-1].keys()
