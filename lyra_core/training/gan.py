"""Sharpens the autoencoder's decoder against critics; latents stay what they are, and so do video networks.

What squared and absolute errors cannot place (grain, leaves, the edges of bricks) they leave out. Critics of frames
(training.frame_critics) ask for it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.errors import ConfigError
from lyra_core.evaluation.autoencoding import reconstruct, to_video
from lyra_core.evaluation.measures import detail
from lyra_core.image_features import ImageFeatures, load_image_features
from lyra_core.image_metrics import psnr_each_db
from lyra_core.mini.vae import MiniVAE
from lyra_core.training.frame_critics import CriticsConfig, FrameCritics, judge
from lyra_core.training.loop import step_generator, train
from lyra_core.training.loop_config import LoopResult
from lyra_core.training.run import TrainingRun
from lyra_core.training.vae import (
    ClipPool,
    Clips,
    ClipSource,
    VaeTrainingConfig,
    held_out_clips,
    initial_vae,
    latent_noise,
    load_grown,
    reconstruction_loss,
    save_sheet,
)
from lyra_core.weights.ema_weights import WEIGHTS, save_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class SharpenConfig:
    """How a decoder is sharpened.

    Attributes:
        critics: how much each counts.
        critic_first: steps in which only the critics learn and only errors and perceptual distance count.
        feature_levels: feature maps of the image network, at strides 4, 8, 16, 32.
        feature_weights: file of image_features.save_image_features; None reads the package.
    """

    critics: CriticsConfig = field(default_factory=CriticsConfig)
    critic_first: int = 150
    feature_levels: int = 3
    feature_weights: Path | None = None

    def features(self, device: torch.device) -> ImageFeatures | None:
        """The image network, where a critic asks for it.

        Raises:
            MissingExtraError: its weights are not installed.
        """
        if not self.critics.needs_features:
            return None
        return load_image_features(levels=self.feature_levels, path=self.feature_weights, device=device)


class Sharpening(nn.Module):
    """An autoencoder whose decoder moves, and its critics."""

    def __init__(self, vae: MiniVAE, config: SharpenConfig, seed: int, widths: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.vae = vae
        critics = FrameCritics(config.critics, widths, seed)
        self.critics = critics.to(vae.latent_mean.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        vae.requires_grad_(requires_grad=False)
        vae.decoder.requires_grad_(requires_grad=True)


def sharpen_losses(
    both: Sharpening,
    video: Float[Tensor, "b 3 t h w"],
    noise: Tensor,
    features: ImageFeatures | None = None,
    *,
    is_judged: bool,
) -> dict[str, Tensor]:
    """Losses of decoder and critics, whose gradients do not mix.

    Args:
        both: what is trained.
        video: sRGB in [-1, 1].
        noise: of the latents.
        features: of photographs.
        is_judged: whether the critics count for the decoder.
    """
    vae = both.vae
    with torch.no_grad():
        mean, log_variance = vae.posterior(video)
        latents = mean.float() + torch.exp(0.5 * log_variance.float()) * noise
    frames = vae.reconstruct(latents).float()
    # the first frame of a video is no whole group: errors alone judge it
    first, rest = frames[:, :, :1], frames[:, :, 1:]
    errors = reconstruction_loss(torch.cat([first, rest], 2), video)
    (by_first,) = torch.autograd.grad(errors, first, retain_graph=True)
    judgement = judge(both.critics, features, rest, video[:, :, 1:], errors, is_judged=is_judged)
    # what follows has the gradient `pull` by the pixels; the graph behind them runs once
    total = (rest * judgement.pull).sum() + (first * by_first).sum() + 0.5 * judgement.learning
    return {"loss": total, **judgement.row}


def sharpness(model: MiniVAE, clips: Clips) -> float:
    """Detail of reconstructed frames (not the first of a clip) against the truth's."""
    frames = reconstruct(model, clips)[:, 1:].flatten(0, 1)
    truth = clips[:, 1:].flatten(0, 1)
    everywhere = torch.ones_like(truth[:, 0], dtype=torch.bool)
    return float((detail(frames, everywhere) / detail(truth, everywhere).clamp(min=1e-4)).mean())


def sharpen_vae(config: VaeTrainingConfig, sharpen: SharpenConfig, run: TrainingRun) -> LoopResult:
    """Train the decoder of a trained autoencoder further; files and errors as those of train_vae.

    Args:
        config: hyper-parameters.
        sharpen: of the critic.
        run: as of train_vae; `start_from` is the trained autoencoder.

    Raises:
        ConfigError: no `start_from`.
    """
    device, replicas = torch.device(run.device), run.replicas
    if run.start_from is None:
        raise ConfigError("a decoder is sharpened from trained weights: give start_from")
    vae = initial_vae(config, device)
    load_grown(vae, run.start_from)
    features = sharpen.features(device)
    both = Sharpening(vae, sharpen, config.seed, None if features is None else features.widths)
    if config.is_compiled:
        for part in (vae.encoder, vae.decoder, *(() if features is None else (features,))):
            part.compile(dynamic=False)
    source = ClipSource(config, "train", device, run.workers)
    pool = ClipPool(source, step_generator(replicas.seed(config.seed + 1), 0))
    held_out = held_out_clips(ClipSource(config, "heldout", device, run.workers), 48 if device.type == "cuda" else 8)
    seed = replicas.seed(config.seed)

    def loss_of(module: Sharpening, step: int) -> dict[str, Tensor]:
        generator = step_generator(seed, step)
        clips = pool.draw(generator)
        noise = latent_noise(config, len(clips), generator, device)
        return sharpen_losses(module, to_video(clips), noise, features, is_judged=step >= sharpen.critic_first)

    def evaluate(module: Sharpening) -> dict[str, float | int]:
        row: dict[str, float | int] = {}
        with torch.compiler.set_stance("force_eager"):  # other batches: not worth compiling again
            for name, clips in held_out.items():
                row[f"psnr_{name}"] = float(psnr_each_db(reconstruct(module.vae, clips), clips).mean())
                row[f"sharpness_{name}"] = sharpness(module.vae, clips)
        return row

    result = train(both, loss_of, config.loop, run, evaluate)
    both.load_state_dict(result.ema)
    result.ema = {name: value.detach().clone() for name, value in vae.state_dict().items()}
    if replicas.is_first:
        save_weights(result.ema, run.out_dir / WEIGHTS)
        save_sheet(vae, held_out, run.out_dir / "reconstructions.png")
    return result
