"""A few-step student held to the truth where it is seen, and to critics of frames where it is not.

Sauer et al. 2023, "Adversarial Diffusion Distillation", section 3.1, with the truth in place of the teacher: the
student jumps from a few noise levels to clean latents, some of them are decoded by the frozen autoencoder, and critics
that see with the features of an image network compare the frames with true ones, decoded
likewise. Squared error alone gives the mean of
all that could be there, which is a blur; a critic asks for one of them. The student's noised inputs begin with its own
jumps, as in training.distill.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.config.rollout import RolloutConfig
from lyra_core.image_features import ImageFeatures, load_image_features
from lyra_core.mini.networks import MiniNetworks
from lyra_core.mini.vae import MiniVAE
from lyra_core.procedural.chunks import ChunkRows
from lyra_core.training.distill import clean_latents, noised
from lyra_core.training.flow import FlowConfig, hole_share, noised_slots
from lyra_core.training.frame_critics import CriticsConfig, FrameCritics, judge
from lyra_core.video.conditioning import MASK_CHANNELS
from lyra_core.video.dit.context import ChunkInputs, PreparedContext
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.schedule import DISTILLED_ENTRIES, distilled_schedule
from lyra_core.weights.ema_weights import load_weights

FRAME_CRITICS = CriticsConfig(adversarial=1.5, matching=0.0, projected=3.0, perceptual=1.5, unseen=0.1, seen_pull=0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialConfig:
    """How a student learns from critics.

    Attributes:
        critics: how much each pull counts.
        entries: levels the student jumps from, as of lyra_core.video.schedule.distilled_schedule.
        anchor: weight of the squared error of latents where a warp shows what is there.
        hole_anchor: weight of it elsewhere: keeps colours, and is small, because the mean of all guesses is a blur.
        frames: weight of all that is asked of frames, against the latents' error.
        latents: consecutive latents of a sample that are decoded.
        critic_first: steps before the critics count for the student.
        feature_levels: feature maps of the image network, at strides 4, 8, 16, 32.
        feature_weights: file of image_features.save_image_features; None reads the package.
        critic_weights: compact weights of the critics of an earlier run, to begin with.
    """

    critics: CriticsConfig = field(default_factory=lambda: FRAME_CRITICS)
    entries: tuple[int, ...] = DISTILLED_ENTRIES
    anchor: float = 1.0
    hole_anchor: float = 0.05
    frames: float = 1.0
    latents: int = 2
    critic_first: int = 100
    feature_levels: int = 3
    feature_weights: Path | None = None
    critic_weights: Path | None = None

    def features(self, device: torch.device, dtype: torch.dtype) -> ImageFeatures | None:
        """The image network, where a critic asks for it.

        Raises:
            MissingExtraError: its weights are not installed.
        """
        if not self.critics.needs_features:
            return None
        network = load_image_features(levels=self.feature_levels, path=self.feature_weights, device=device).to(dtype)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialBatch:
    """One batch with everything drawn.

    Attributes:
        first, again: noise of the student's first jump and of its next input. [b c n r q]
        level: noise level the student jumps from. [b]
        target: clean latents, float32. [b c n r q]
        anchor: weight of the squared error against them. [b n r q]
        truth: true frames of the decoded latents, in [-1, 1]. [b 3 t h w]
        known: share of each of their latent pixels that a warp reaches. [b 1 t r q]
        group: first decoded latent, at least 1. [b]
        history, condition, rays, correspondence: as in ChunkInputs.
        captions: bytes. [b s]
        last_frames: in [-1, 1]. [b 3 h w]
    """

    first: Tensor
    again: Tensor
    level: Tensor
    target: Tensor
    anchor: Tensor
    truth: Tensor
    known: Tensor
    group: Tensor
    history: Tensor
    condition: Tensor
    rays: Tensor
    correspondence: Tensor
    captions: Tensor
    last_frames: Tensor

    def context(self, networks: MiniNetworks) -> PreparedContext:
        """What a network makes of the conditions."""
        inputs = ChunkInputs(
            history=self.history, condition=self.condition, rays=self.rays, correspondence=self.correspondence
        )
        return networks.dit.prepare_context(networks.complete(inputs, self.captions, self.last_frames))


class StudentAndCritics(nn.Module):
    """What such a run trains."""

    def __init__(
        self, student: MiniNetworks, config: AdversarialConfig, widths: tuple[int, ...] | None, seed: int
    ) -> None:
        """First weights.

        Raises:
            WeightsError: critics that cannot be read or have other sizes.
        """
        super().__init__()
        self.student = copy.deepcopy(student)
        device = next(student.parameters()).device
        critics = FrameCritics(config.critics, widths, seed)
        self.critics = critics.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.critic_weights is not None:
            load_weights(self.critics, config.critic_weights, "critics")


def adversarial_batch(
    rows: ChunkRows,
    layout: HistoryLayout,
    config: AdversarialConfig,
    flow: FlowConfig,
    rollout: RolloutConfig,
    generator: torch.Generator,
) -> AdversarialBatch:
    """Draw noise and levels for samples that keep true frames; arguments as of training.flow.flow_batch."""
    device, count = rows.target.device, len(rows)
    levels = distilled_schedule(config.entries, rollout.shift).sigmas[:-1].to(device)
    inputs = noised_slots(rows.inputs(layout, rollout), layout, flow, generator)
    holes = hole_share(rows)
    # mask channels hold the coverage of the four frames of a latent
    coverage = rows.generated[:, :MASK_CHANNELS].float().transpose(1, 2)
    chosen = rows.group[:, None] + torch.arange(config.latents, device=device)
    known = coverage[torch.arange(count, device=device)[:, None], chosen].flatten(1, 2)

    def noise() -> Tensor:
        return torch.randn(rows.target.shape, generator=generator, device=device)

    return AdversarialBatch(
        first=noise(),
        again=noise(),
        level=levels[torch.randint(len(levels), (count,), generator=generator, device=device)],
        target=rows.target.float(),
        anchor=config.anchor + (config.hole_anchor - config.anchor) * holes,
        truth=rows.frames.float() / 127.5 - 1.0,
        known=known[:, None],
        group=rows.group,
        history=inputs.history,
        condition=inputs.condition,
        rays=inputs.rays,
        correspondence=inputs.correspondence,
        captions=rows.captions,
        last_frames=rows.last_frames(),
    )


def decoded(vae: MiniVAE, latents: Float[Tensor, "b c n r q"], group: Tensor, count: int) -> Float[Tensor, "b 3 t h w"]:
    """Frames of consecutive latents, each beside the one before it.

    Args:
        vae: frozen; gradients pass through.
        latents: normalised, of a chunk.
        group: first latent to decode, at least 1. [b]
        count: how many are decoded.
    """
    at = group[:, None] - 1 + torch.arange(count + 1, device=group.device)
    # a product in place of indices, whose gradient would have to sort them
    is_chosen = at[..., None] == torch.arange(latents.shape[2], device=group.device)
    chosen = torch.einsum("bcnrq,bkn->bckrq", latents, is_chosen.to(latents))
    plain = chosen * vae.latent_std.float()[:, None, None, None] + vae.latent_mean.float()[:, None, None, None]
    plain = plain.to(vae.dtype)
    return vae.reconstruct(plain[:, :, 1:], plain[:, :, 0]).float()


def frame_errors(found: Tensor, truth: Tensor, known: Tensor, unseen: float) -> Float[Tensor, ""]:
    """Errors as of the autoencoder's training, weighted by what can be known; videos [b 3 t h w] in [-1, 1]."""
    error = (found - truth) * (unseen + (1 - unseen) * known).sqrt()
    loss = 5.0 * error.square().mean() + 0.5 * error.abs().mean()
    flat = error.transpose(1, 2).flatten(0, 1)
    for level in range(3):
        low = functional.avg_pool2d(flat, 2)
        band = flat - functional.interpolate(low, scale_factor=2.0, mode="nearest")
        loss = loss + 0.5 / 2**level * band.abs().mean()
        flat = low
    return loss


def adversarial_losses(
    both: StudentAndCritics,
    vae: MiniVAE,
    features: ImageFeatures | None,
    config: AdversarialConfig,
    batch: AdversarialBatch,
    *,
    is_judged: bool,
) -> dict[str, Tensor]:
    """Losses of student and critics; nothing here waits for the device or draws.

    Args:
        both: what is trained.
        vae: frozen.
        features: of photographs.
        config: weights.
        batch: with everything drawn.
        is_judged: whether the critics count for the student.
    """
    context = batch.context(both.student)
    with torch.no_grad():
        start = clean_latents(both.student, context, batch.first, torch.ones_like(batch.level))
    made = clean_latents(both.student, context, noised(start, batch.again, batch.level), batch.level)
    anchor = 0.5 * ((made - batch.target).square().mean(1) * batch.anchor).mean()
    frames = decoded(vae, made, batch.group, config.latents)
    size = (frames.shape[2], *frames.shape[3:])
    known = functional.interpolate(batch.known, size=size, mode="nearest")
    errors = frame_errors(frames, batch.truth, known, config.critics.unseen)
    with torch.no_grad():
        # what the autoencoder makes of true latents: critics judge the latents and not its decoder, which is fixed
        real = decoded(vae, batch.target, batch.group, config.latents)
    judgement = judge(both.critics, features, frames, batch.truth, errors, known, real=real, is_judged=is_judged)
    loss = anchor + config.frames * (frames * judgement.pull).sum() + 0.5 * judgement.learning
    return {"loss": loss, "anchor": anchor.detach(), **judgement.row}
