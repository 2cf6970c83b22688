"""The autoencoder learns two small scenes within seconds, and a resumed run is the same bit for bit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.training import vae
from lyra_core.training.checkpoint import FULL_CHECKPOINT
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.run import TrainingRun
from lyra_core.training.vae import VaeTrainingConfig, augment, load_grown, reconstruction_loss, train_vae
from lyra_core.weights.ema_weights import WEIGHTS


def config(steps, **changes):
    fields = {
        "loop": LoopConfig(max_steps=steps, learning_rate=3e-3, warmup_steps=5, log_every=1, **changes.pop("loop", {})),
        "model": TINY_MINI_VAE,
        "height": 24,
        "width": 40,
        "num_frames": 5,
        "batch": 4,
        "num_scenes": 2,
        "num_held_out": 1,
        "textures_per_kind": 1,
        "texture_size": 32,
        "pool_clips": 8,
        "fresh_clips": 2,
        "refreshes": 1,
        "supersample": 1,
    }
    return VaeTrainingConfig(**{**fields, **changes})


@pytest.mark.slow  # trains for 12 s
def test_overfits_two_scenes(tmp_path):
    result = train_vae(config(150, fresh_clips=1), TrainingRun(out_dir=tmp_path))
    psnr = [row["psnr_train"] for row in result.metrics if "psnr_train" in row]
    assert sum(psnr[-10:]) / 10 > sum(psnr[:5]) / 5 + 4
    shipped = load_file(tmp_path / WEIGHTS)
    model = build_mini_vae(TINY_MINI_VAE)
    model.load_state_dict({name: value.float() for name, value in shipped.items()})
    assert bool((model.latent_std != 1).any())
    assert result.metrics[-1]["psnr_worlds_shipped"] == pytest.approx(result.metrics[-2]["psnr_worlds"], abs=0.3)
    assert (tmp_path / "reconstructions.png").stat().st_size > 1000


def test_resume_is_bit_exact(tmp_path, monkeypatch):
    plan = config(6, pool_clips=0, batch=2, loop={"checkpoint_every_s": 1e-9})
    whole = train_vae(plan, TrainingRun(out_dir=tmp_path / "whole"))
    draw, calls = vae.latent_noise, []

    def killed_in_the_fourth_step(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(vae, "latent_noise", killed_in_the_fourth_step)
    with pytest.raises(KeyboardInterrupt):
        train_vae(plan, TrainingRun(out_dir=tmp_path / "half"))
    monkeypatch.setattr(vae, "latent_noise", draw)
    again = train_vae(plan, TrainingRun(out_dir=tmp_path / "half", resume_from=tmp_path / "half" / FULL_CHECKPOINT))
    assert len(again.metrics) > 3
    for name, value in whole.ema.items():
        assert torch.equal(value, again.ema[name]), name


def test_loss_is_zero_for_the_truth_and_grows_with_blur():
    truth = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurred = torch.nn.functional.avg_pool3d(truth, (1, 3, 3), 1, (0, 1, 1))
    assert float(reconstruction_loss(truth, truth)) == 0
    assert float(reconstruction_loss(blurred, truth)) > 0.1


def test_augmentation_shares():
    clips = torch.rand(64, 5, 3, 24, 40, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1
    plan = config(1, still_share=0.5, hole_share=0.5)
    out = augment(clips, plan, torch.Generator().manual_seed(1))
    holed = (out == 0).flatten(1).any(1)
    assert 16 < int(holed.sum()) < 48
    moving = (out[:, 0] != out[:, -1]).flatten(1).any(1) & ~holed
    assert 0 < int(moving.sum()) < 32
    assert torch.equal(augment(clips, config(1, still_share=0.0, hole_share=0.0), torch.Generator()), clips)


def test_ragged_clips_are_refused():
    with pytest.raises(ConfigError, match="1 \\+ 4n"):
        config(1, num_frames=6)


def test_a_grown_autoencoder_begins_as_the_smaller_one(tmp_path):
    train_vae(config(2), TrainingRun(out_dir=tmp_path))
    small, large = build_mini_vae(TINY_MINI_VAE), build_mini_vae(replace(TINY_MINI_VAE, decoder_blocks=(2, 3)))
    load_grown(small, tmp_path / WEIGHTS)
    load_grown(large, tmp_path / WEIGHTS)
    video = torch.rand(1, 3, 5, 24, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = small.encode(video)
        torch.testing.assert_close(large.decode(large.encode(video)), small.decode(latents))
    with pytest.raises(WeightsError, match="another model"):
        load_grown(build_mini_vae(replace(TINY_MINI_VAE, decoder_dims=(48, 24))), tmp_path / WEIGHTS)
