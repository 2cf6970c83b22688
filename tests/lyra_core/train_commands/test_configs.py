"""Options decide the configurations of runs; debugging ones are small whatever else is asked."""

from pathlib import Path

import pytest

from lyra_core.train_commands.configs import depth_config, sharpen_config, vae_config, video_config
from lyra_core.train_commands.network_options import DepthTrainingOptions, VaeTrainingOptions, VideoTrainingOptions

PAIRS = [(VaeTrainingOptions, vae_config), (VideoTrainingOptions, video_config), (DepthTrainingOptions, depth_config)]


def options(kind, **changes):
    return kind(minutes=1.0, out=Path("out"), **changes)


@pytest.mark.parametrize(("kind", "config"), PAIRS)
def test_the_learning_rate_is_the_one_asked_for(kind, config):
    assert config(options(kind, lr=7e-4)).loop.learning_rate == 7e-4


@pytest.mark.parametrize(("kind", "config"), PAIRS)
def test_debugging_is_small_and_exact(kind, config):
    full, small = config(options(kind, seed=3)), config(options(kind, seed=3, debug=True))
    assert (full.seed, small.seed, full.loop.max_seconds, small.loop.max_seconds) == (3, 3, 60, 60)
    assert small.batch < full.batch
    assert full.loop.precision != "float32" == small.loop.precision
    assert (small.loop.evaluate_every_s, small.loop.checkpoint_every_s) == (0, 0)


def test_defaults_follow_what_is_trained():
    plain, sharpened = vae_config(options(VaeTrainingOptions)), vae_config(options(VaeTrainingOptions, sharpen=True))
    assert (plain.loop.learning_rate, plain.max_speed) == (1.5e-3, None)
    assert (sharpened.loop.learning_rate, sharpened.max_speed, sharpened.loop.betas) == (3e-4, 2, (0.5, 0.99))
    assert vae_config(options(VaeTrainingOptions, sharpen=True, max_speed=4)).max_speed == 4
    teacher, student = (
        video_config(options(VideoTrainingOptions)),
        video_config(options(VideoTrainingOptions, student=True)),
    )
    assert (teacher.loop.learning_rate, student.loop.learning_rate) == (1e-3, 2e-4)
    assert (teacher.augment_from, student.augment_from) == (300, 0)
    assert (teacher.student, teacher.loop.evaluate_every_s) == (None, 180)
    assert video_config(options(VideoTrainingOptions, evaluate_every=0.0)).loop.evaluate_every_s == 0
    assert video_config(options(VideoTrainingOptions, no_augmentation=True)).mix.augmented == 0
    assert sharpen_config(options(VaeTrainingOptions, gan_weight=0.25)).critics.matching == pytest.approx(0.05)


def test_depth_has_its_own_schedule():
    config = depth_config(options(DepthTrainingOptions))
    assert (config.loop.warmup_steps, config.loop.checkpoint_every_s, config.loop.clip_norm) == (200, 70, 5.0)
    assert (config.data.num_scenes, config.is_recorded, config.splat_from_step) == (1280, True, 1200)
    assert not depth_config(options(DepthTrainingOptions, no_cuda_graph=True)).is_recorded
    assert depth_config(options(DepthTrainingOptions, splats_from=-1)).splat_from_step is None
    assert depth_config(options(DepthTrainingOptions, within=2.0)).within_s == 120
    usual, single = (depth_config(options(DepthTrainingOptions, window_every=every)) for every in (None, 4))
    assert [usual.is_single(step) for step in range(6)] == [False, False, True] * 2
    assert [single.is_single(step) for step in range(5)] == [False, True, True, True, False]


def test_an_adversarial_student_keeps_what_critics_see():
    weights = Path("lite0.safetensors")
    config = video_config(options(VideoTrainingOptions, adversarial=True, feature_weights=weights))
    assert config.adversarial is not None
    assert (config.student, config.augment_from) == (None, 0)
    assert config.chunks.kept_latents == config.adversarial.latents == 2
    assert config.adversarial.feature_weights == weights
    assert video_config(options(VideoTrainingOptions, adversarial=True, debug=True)).chunks.kept_latents == 1
    assert video_config(options(VideoTrainingOptions)).chunks.kept_latents == 0
