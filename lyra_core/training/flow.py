"""The rectified-flow objective of the video network, on chunks whose conditions are at hand.

x = (1 - sigma) clean + sigma noise, the network predicts noise - clean (Liu et al. 2023, "Rectified Flow"). Retrieved
frames get a little noise and captions are sometimes left out, as in the released training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.config.rollout import RolloutConfig
from lyra_core.procedural.chunks import ChunkRows
from lyra_core.video.conditioning import MASK_CHANNELS
from lyra_core.video.dit.config import DiTConfig
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.schedule import NUM_TRAIN_TIMESTEPS, TrainingSchedule, training_schedule

MAX_SLOT_NOISE = 1.0


@runtime_checkable
class VideoNetwork(Protocol):
    """The transformer of VideoNetworks, of which only the configuration is asked."""

    config: DiTConfig


@runtime_checkable
class VideoNetworks(Protocol):
    """What the objective trains: MiniNetworks, or ReleasedNetworks of a fine-tuning run."""

    @property
    def dit(self) -> VideoNetwork:
        """The transformer."""

    def __call__(
        self, latents: Tensor, timestep: Tensor, inputs: ChunkInputs, captions: Tensor, last_frames: Tensor
    ) -> Tensor:
        """The velocity of noisy latents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """Noise levels and what is hidden from the network.

    Attributes:
        shift: of the noise levels towards noise.
        weighting: of the loss by level: "bell" as the released training, or "even".
        caption_drop: share of samples with an empty caption.
        slot_noise: add noise to retrieved frames, of log-normal strength.
        slot_noise_log_mean: of its strength.
        slot_noise_log_std: of its strength.
        hole_weight: weight of the loss where the warped last frame has holes, against 1 elsewhere.
        largest_history_level: highest noise level from which self-augmented histories are made.
    """

    shift: float = 5.0
    weighting: Literal["bell", "even"] = "bell"
    caption_drop: float = 0.2
    slot_noise: bool = True
    slot_noise_log_mean: float = -3.0
    slot_noise_log_std: float = 2.0
    hole_weight: float = 1.0
    largest_history_level: float = 0.5

    def schedule(self) -> TrainingSchedule:
        """Levels and weights."""
        return training_schedule(self.shift)


def noised_slots(
    inputs: ChunkInputs, layout: HistoryLayout, config: FlowConfig, generator: torch.Generator
) -> ChunkInputs:
    """Inputs whose retrieved frames carry noise, a strength a slot, alike in history and condition."""
    if not config.slot_noise:
        return inputs
    slots, history = list(layout.spatial_slots), inputs.history
    b, c, _, h, w = history.shape
    device = history.device
    draw = torch.randn(b, 1, len(slots), 1, 1, generator=generator, device=device)
    sigma = torch.exp(config.slot_noise_log_mean + config.slot_noise_log_std * draw).clamp(max=MAX_SLOT_NOISE)
    noise = sigma * torch.randn(b, c, len(slots), h, w, generator=generator, device=device)
    history, condition = history.clone(), inputs.condition.clone()
    history[:, :, slots] += noise.to(history)
    condition[:, -c:, slots] += noise.to(condition)
    return replace(inputs, history=history, condition=condition)


def hole_share(rows: ChunkRows) -> Float[Tensor, "b n r q"]:
    """Share of each generated latent that no warped frame reaches, by the coverage in the mask channels."""
    return 1 - rows.generated[:, :MASK_CHANNELS].float().mean(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBatch:
    """One batch with everything drawn: what a step computes is a function of these tensors alone.

    Attributes:
        noisy: latents at their noise levels. [b c n r q]
        timestep: 1000 times the levels. [b]
        velocity: what is to be predicted, float32. [b c n r q]
        weight: of the squared error; the mean over each sample counts. [b n r q]
        holes: share of each latent that no warped frame reaches. [b n r q]
        history, condition, rays, correspondence: as in ChunkInputs.
        captions: bytes; zeros where the caption is left out. [b s]
        last_frames: in [-1, 1]. [b 3 h w]
    """

    noisy: Tensor
    timestep: Tensor
    velocity: Tensor
    weight: Tensor
    holes: Tensor
    history: Tensor
    condition: Tensor
    rays: Tensor
    correspondence: Tensor
    captions: Tensor
    last_frames: Tensor

    def inputs(self) -> ChunkInputs:
        """The network's inputs, without text and image tokens."""
        return ChunkInputs(
            history=self.history, condition=self.condition, rays=self.rays, correspondence=self.correspondence
        )


def flow_batch(
    rows: ChunkRows, layout: HistoryLayout, config: FlowConfig, rollout: RolloutConfig, generator: torch.Generator
) -> FlowBatch:
    """Draw noise, levels and what is hidden.

    Args:
        rows: samples.
        layout: of the network.
        config: noise levels and what is hidden.
        rollout: how conditions are made.
        generator: on the samples' device.
    """
    device = rows.target.device
    schedule = config.schedule()
    drawn = schedule.draw(len(rows), generator)
    sigma = schedule.sigmas.to(device)[drawn][:, None, None, None, None]
    target = rows.target.float()
    noise = torch.randn(target.shape, generator=generator, device=device)
    inputs = noised_slots(rows.inputs(layout, rollout), layout, config, generator)
    kept = torch.rand(len(rows), 1, generator=generator, device=device) >= config.caption_drop
    holes = hole_share(rows)
    weight = 1 + (config.hole_weight - 1) * holes
    if config.weighting == "bell":
        weight = weight * schedule.weights.to(device)[drawn][:, None, None, None]
    return FlowBatch(
        noisy=(1 - sigma) * target + sigma * noise,
        timestep=sigma.flatten() * NUM_TRAIN_TIMESTEPS,
        velocity=noise - target,
        weight=weight,
        holes=holes,
        history=inputs.history,
        condition=inputs.condition,
        rays=inputs.rays,
        correspondence=inputs.correspondence,
        captions=rows.captions * kept,
        last_frames=rows.last_frames(),
    )


def flow_losses(networks: VideoNetworks, batch: FlowBatch) -> dict[str, Tensor]:
    """Losses of a drawn batch; nothing here waits for the device or draws."""
    predicted = networks(batch.noisy, batch.timestep, batch.inputs(), batch.captions, batch.last_frames)
    error = (predicted.float() - batch.velocity).square().mean(1)
    known, unseen = (batch.holes < 0.5).float(), (batch.holes >= 0.5).float()
    return {
        "loss": (error * batch.weight).mean(),
        "error_seen": (error.detach() * known).mean() / known.mean().clamp(min=1e-3),
        "error_holes": (error.detach() * unseen).mean() / unseen.mean().clamp(min=1e-3),
    }


def flow_loss(
    networks: VideoNetworks,
    rows: ChunkRows,
    config: FlowConfig,
    rollout: RolloutConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Losses of one batch.

    Args:
        networks: predict the velocity.
        rows: samples, on the networks' device.
        config: noise levels and what is hidden.
        rollout: how conditions are made.
        generator: on the networks' device.
    """
    return flow_losses(networks, flow_batch(rows, networks.dit.config.history_layout, config, rollout, generator))


@torch.no_grad()
def one_step_prediction(
    networks: VideoNetworks,
    rows: ChunkRows,
    config: FlowConfig,
    rollout: RolloutConfig,
    generator: torch.Generator,
) -> Float[Tensor, "b c n h w"]:
    """Clean latents by one step from partly noised truth: what stands in for the past in self-augmented histories."""
    device, layout = rows.target.device, networks.dit.config.history_layout
    schedule = config.schedule()
    drawn = schedule.draw(len(rows), generator)
    level = schedule.sigmas.to(device)[drawn] * config.largest_history_level
    sigma = level[:, None, None, None, None]
    target = rows.target.float()
    noise = torch.randn(target.shape, generator=generator, device=device)
    noisy = (1 - sigma) * target + sigma * noise
    inputs = rows.inputs(layout, rollout)
    velocity = networks(noisy, level * NUM_TRAIN_TIMESTEPS, inputs, rows.captions, rows.last_frames())
    return noisy - sigma * velocity.float()


def random_inputs(
    config: DiTConfig, batch: int, rows: int, columns: int, generator: torch.Generator, text_tokens: int = 32
) -> ChunkInputs:
    """Conditions of the right shapes and no meaning, on the generator's device: to warm up and to measure speed."""
    layout, device = config.history_layout, generator.device

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    size = (rows, columns)
    return ChunkInputs(
        history=draw(batch, config.latent_channels, layout.num_history, *size),
        condition=draw(batch, config.condition_channels, layout.num_slots, *size),
        rays=draw(batch, config.ray_channels, layout.num_slots, *size),
        correspondence=draw(batch, config.correspondence_channels, layout.num_slots, *size),
        text=None if config.text_dim is None else draw(batch, text_tokens, config.text_dim),
        image=None if config.image_dim is None else draw(batch, 28, config.image_dim),
    )
