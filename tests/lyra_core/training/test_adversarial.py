"""A student among critics: what each loss pulls on, and a run of a few steps through the front door of training."""

from dataclasses import replace

import pytest
import torch

from lyra_core.errors import ConfigError
from lyra_core.image_features import ImageFeatures, perceptual_distance, save_image_features
from lyra_core.mini.config import MINI, MINI_DIT
from lyra_core.mini.networks import build_mini_networks
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.procedural.chunks import ChunkConfig, ChunkRows
from lyra_core.training.adversarial import (
    AdversarialConfig,
    StudentAndCritics,
    adversarial_batch,
    adversarial_losses,
    decoded,
    frame_errors,
)
from lyra_core.training.flow import FlowConfig, random_inputs
from lyra_core.training.frame_critics import CriticsConfig, weighted_distance
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.vae import reconstruction_loss
from lyra_core.training.video_config import VideoTrainingConfig

DIT = replace(
    MINI_DIT,
    layout="f1k1f4s2f1s1f3k2f1k1_g3",
    dim=48,
    ffn_dim=96,
    num_heads=2,
    num_layers=1,
    squeeze_dim=8,
    text_dim=16,
    image_dim=16,
    time_dim=32,
)
CONFIG = AdversarialConfig(
    critics=CriticsConfig(adversarial=0.3, matching=0.0, projected=0.7, perceptual=1.0, unseen=0.2, dims=(8, 16, 16))
)


def network() -> ImageFeatures:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        features = ImageFeatures("lite0", 2).eval()
        for parameter in features.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
        return features


@pytest.fixture(scope="module")
def rows() -> ChunkRows:
    generator = torch.Generator().manual_seed(0)
    inputs = random_inputs(DIT, 2, 4, 8, generator)
    past = DIT.history_layout.num_history
    return ChunkRows(
        history=inputs.history,
        generated=inputs.condition[:, :, past:].clamp(0, 1),
        rays=inputs.rays,
        maps=inputs.correspondence[:, :, past:],
        target=torch.randn(2, 16, 3, 4, 8, generator=generator),
        last=torch.zeros(2, 3, 32, 64, dtype=torch.uint8),
        captions=torch.zeros(2, 96, dtype=torch.uint8),
        frames=torch.randint(256, (2, 3, 8, 32, 64), generator=generator, dtype=torch.uint8),
        group=torch.tensor([1, 1]),
    )


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build_mini_vae(TINY_MINI_VAE).requires_grad_(requires_grad=False)


def test_decoded_latents_are_those_of_the_whole_chunk(vae):
    latents = torch.randn(2, 16, 5, 4, 8)
    whole = vae.decode(latents, latents_per_window=5)
    some = decoded(vae, latents, torch.tensor([1, 3]), 2)
    for row, first in enumerate((1, 3)):
        torch.testing.assert_close(some[row], whole[row, :, 4 * first - 3 : 4 * first + 5], atol=1e-5, rtol=1e-4)


def test_gradients_of_student_and_critics_do_not_mix(rows, vae):
    features = network()
    both = StudentAndCritics(build_mini_networks(DIT, 1), CONFIG, features.widths, 0)
    with torch.no_grad():
        for parameter in both.student.parameters():  # the first weights of gates are zero
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(2)
    batch = adversarial_batch(rows, DIT.history_layout, CONFIG, FlowConfig(), MINI, generator)
    pulls = {}
    for is_judged in (False, True):
        both.zero_grad(set_to_none=True)
        losses = adversarial_losses(both, vae, features, CONFIG, batch, is_judged=is_judged)
        losses["loss"].backward()
        moved = {name.partition(".")[0] for name, p in both.named_parameters() if p.grad is not None}
        assert moved == {"student", "critics"}
        pulls[is_judged] = {name: p.grad.clone() for name, p in both.named_parameters() if p.grad is not None}
        assert ("projected" in losses) == is_judged
    for name, gradient in pulls[True].items():
        if name.startswith("critics"):  # power iterations of the norm go on from call to call
            torch.testing.assert_close(gradient, pulls[False][name], atol=0.05, rtol=0.5)
    assert any((pulls[True][name] - pulls[False][name]).abs().max() > 1e-7 for name in pulls[True] if "student" in name)


def test_errors_and_distances_weigh_the_unseen_less():
    generator = torch.Generator().manual_seed(0)
    found, truth = (torch.rand(2, 3, 4, 32, 64, generator=generator) * 2 - 1 for _ in range(2))
    everywhere, nowhere = torch.ones(2, 1, 4, 32, 64), torch.zeros(2, 1, 4, 32, 64)
    torch.testing.assert_close(frame_errors(found, truth, everywhere, 0.2), reconstruction_loss(found, truth))
    assert frame_errors(found, truth, nowhere, 0.2) < frame_errors(found, truth, everywhere, 0.2)
    features = network()
    maps = [features(x[:, :, 0] * 0.5 + 0.5) for x in (found, truth)]
    plain = perceptual_distance(*maps).mean()
    torch.testing.assert_close(weighted_distance(*maps, everywhere[:, :, 0], 0.2), plain)
    torch.testing.assert_close(weighted_distance(*maps, nowhere[:, :, 0], 0.2), 0.2 * plain)


def test_samples_must_keep_what_is_judged():
    loop = LoopConfig(max_steps=1)
    with pytest.raises(ConfigError, match="frames of 2 latents, found 0"):
        VideoTrainingConfig(loop=loop, adversarial=CONFIG)
    with pytest.raises(ConfigError, match="frames of 0 latents, found 2"):
        VideoTrainingConfig(loop=loop, chunks=ChunkConfig(kept_latents=2))


def test_the_image_network_is_read_from_a_file(tmp_path):
    save_image_features(network(), tmp_path / "features.safetensors")
    config = replace(CONFIG, feature_levels=2, feature_weights=tmp_path / "features.safetensors")
    found = config.features(torch.device("cpu"), torch.float32)
    assert found is not None
    assert found.widths == (24, 40)
    assert AdversarialConfig(critics=CriticsConfig()).features(torch.device("cpu"), torch.float32) is None
