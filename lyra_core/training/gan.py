"""Sharpens the autoencoder's decoder against a critic; latents stay what they are, and so do video networks.

What squared and absolute errors cannot place (grain, leaves, the edges of bricks) they leave out. A critic of patches
of four frames each (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", section
3.2.2) asks for it back, and since it sees the frames of a group together, grain has to move with its surface. The
critic's share of the gradient follows that of the errors, as in Esser et al. 2021, "Taming Transformers", equation 7,
but by pixels in place of the last layer's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lyra_core.errors import ConfigError
from lyra_core.evaluation.autoencoding import reconstruct, to_video
from lyra_core.evaluation.measures import detail
from lyra_core.image_metrics import psnr_each_db
from lyra_core.mini.vae import GROUP, MiniVAE
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
    """How much the critic counts.

    Attributes:
        adversarial: its gradient by the pixels, against that of the errors.
        matching: weight of the distance between its features of truth and reconstruction (Wang et al. 2018,
            "High-Resolution Image Synthesis with Conditional GANs", equation 4).
        critic_first: steps in which only the critic and the errors count.
        dims: channels of the critic at 1/2, 1/4 and 1/8 of the resolution.
    """

    adversarial: float = 0.5
    matching: float = 0.1
    critic_first: int = 150
    dims: tuple[int, int, int] = (48, 96, 192)


class PatchCritic(nn.Module):
    """Groups of frames to one number for each patch, high where they look true, with the features on the way."""

    def __init__(self, dims: tuple[int, int, int]) -> None:
        super().__init__()
        widths = (3 * GROUP, *dims)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(8, after) if level else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
            for level, (before, after) in enumerate(pairwise(widths))
        )
        self.head = nn.Conv2d(dims[-1], 1, 3, padding=1)

    def forward(self, groups: Float[Tensor, "n 12 h w"]) -> tuple[Tensor, ...]:
        """Features of each level, then the verdicts."""
        features: list[Tensor] = []
        x = groups
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return (*features, self.head(x))


class Sharpening(nn.Module):
    """An autoencoder whose decoder moves, and its critic."""

    def __init__(self, vae: MiniVAE, config: SharpenConfig, seed: int) -> None:
        super().__init__()
        self.vae = vae
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            self.critic = PatchCritic(config.dims).to(vae.latent_mean.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        vae.requires_grad_(requires_grad=False)
        vae.decoder.requires_grad_(requires_grad=True)


def _groups(video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "n 12 h w"]:
    """Groups of 4 frames as the autoencoder has them, the first frame of the video left out."""
    return rearrange(video[:, :, 1:], "b c (g t) h w -> (b g) (t c) h w", t=GROUP)


def sharpen_losses(
    both: Sharpening, video: Float[Tensor, "b 3 t h w"], noise: Tensor, config: SharpenConfig, *, is_judged: bool
) -> dict[str, Tensor]:
    """Losses of decoder and critic, whose gradients do not mix.

    Args:
        both: what is trained.
        video: sRGB in [-1, 1].
        noise: of the latents.
        config: weights.
        is_judged: whether the critic counts for the decoder.
    """
    vae, critic = both.vae, both.critic
    with torch.no_grad():
        mean, log_variance = vae.posterior(video)
        latents = mean.float() + torch.exp(0.5 * log_variance.float()) * noise
    found = vae.reconstruct(latents).float()
    errors = reconstruction_loss(found, video)
    true, made = _groups(video), _groups(found)
    verdict_true, verdict_made = critic(true)[-1].float(), critic(made.detach())[-1].float()
    hinge = functional.relu(1 - verdict_true).mean() + functional.relu(1 + verdict_made).mean()
    row = {"errors": errors.detach(), "critic": hinge.detach()}
    if not is_judged:
        return {"loss": errors + 0.5 * hinge, **row}
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    with torch.no_grad():
        wanted = critic(true)[:-1]
    *features, verdict = functional_call(critic, frozen, (made,))
    adversarial = -verdict.float().mean()
    pairs = zip(features, wanted, strict=True)
    matching = torch.stack([(a.float() - b.float()).abs().mean() for a, b in pairs]).sum()
    (by_errors,) = torch.autograd.grad(errors, found, retain_graph=True)
    (by_verdict,) = torch.autograd.grad(adversarial, found, retain_graph=True)
    (by_matching,) = torch.autograd.grad(matching, found)
    share = config.adversarial * by_errors.norm() / by_verdict.norm().clamp(min=1e-8)
    pull = by_errors + share * by_verdict + config.matching * by_matching
    # what follows has the gradient `pull` by the pixels; the graph behind them runs once
    total = (found * pull).sum() + 0.5 * hinge
    return {"loss": total, **row, "adversarial": adversarial.detach(), "matching": matching.detach()}


def sharpness(model: MiniVAE, clips: Clips) -> float:
    """Detail of reconstructed frames (not the first of a clip) against the truth's."""
    found = reconstruct(model, clips)[:, 1:].flatten(0, 1)
    truth = clips[:, 1:].flatten(0, 1)
    everywhere = torch.ones_like(truth[:, 0], dtype=torch.bool)
    return float((detail(found, everywhere) / detail(truth, everywhere).clamp(min=1e-4)).mean())


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
    both = Sharpening(vae, sharpen, config.seed)
    if config.is_compiled:
        for part in (vae.encoder, vae.decoder):
            part.compile(dynamic=False)
    source = ClipSource(config, "train", device, run.workers)
    pool = ClipPool(source, step_generator(replicas.seed(config.seed + 1), 0))
    held_out = held_out_clips(ClipSource(config, "heldout", device, run.workers), 48 if device.type == "cuda" else 8)
    seed = replicas.seed(config.seed)

    def loss_of(module: Sharpening, step: int) -> dict[str, Tensor]:
        generator = step_generator(seed, step)
        clips = pool.draw(generator)
        noise = latent_noise(config, len(clips), generator, device)
        return sharpen_losses(module, to_video(clips), noise, sharpen, is_judged=step >= sharpen.critic_first)

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
