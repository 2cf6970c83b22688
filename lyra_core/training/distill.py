"""A student of the video network that needs few steps, by matching its teacher's distribution.

Yin et al. 2024, "Improved Distribution Matching Distillation for Fast Image Synthesis" (DMD2). The student jumps from a
few noise levels to clean latents. What it makes is noised again; where the teacher and a critic, which learns to
denoise what the student makes, disagree about the clean latents, the student moves towards the teacher (equation 2).
Against the difference between training and sampling, the noised inputs of the student begin with its own jumps
(section 4.5). Histories are self-augmented as in the teacher's training, by the student itself.

Matching alone drifts from what the conditions say: where a warp shows what is there, there is one right answer, and the
student is also held to it (the regression term of Yin et al. 2024, "One-step Diffusion with Distribution Matching
Distillation", section 3.3, with the truth in place of the teacher's samples).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.config.rollout import RolloutConfig
from lyra_core.errors import ConfigError
from lyra_core.mini.networks import MiniNetworks
from lyra_core.procedural.chunks import ChunkRows
from lyra_core.training.flow import FlowConfig, hole_share, noised_slots
from lyra_core.video.dit.context import ChunkInputs, PreparedContext
from lyra_core.video.dit.layout import HistoryLayout
from lyra_core.video.schedule import DISTILLED_ENTRIES, NUM_TRAIN_TIMESTEPS, distilled_schedule

LOWEST, HIGHEST = 0.02, 0.98
"""Of the noise levels at which teacher and critic are compared (DMD2, section 4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentConfig:
    """How a student learns.

    Attributes:
        entries: levels it jumps from, as of lyra_core.video.schedule.distilled_schedule.
        critic_steps: steps of the critic for each of the student (DMD2, section 4.2).
        anchor: weight of the squared error against the truth where a warp shows what is there.
        hole_anchor: weight of it elsewhere: keeps colours, and is small, because the mean of all guesses is a blur.
    """

    entries: tuple[int, ...] = DISTILLED_ENTRIES
    critic_steps: int = 4
    anchor: float = 1.0
    hole_anchor: float = 0.1

    def __post_init__(self) -> None:
        if self.critic_steps < 1:
            raise ConfigError(f"a student needs at least 1 step of its critic for each of its own, {self.critic_steps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentBatch:
    """One batch with everything drawn.

    Attributes:
        first, again, compared, critic: noise: of the student's first jump, of its next input, of what teacher and
            critic compare, of what the critic learns from. [b c n r q]
        level: noise level the student jumps from. [b]
        compared_level: that of the comparison. [b]
        critic_level: that the critic learns at. [b]
        target: clean latents, float32. [b c n r q]
        anchor: weight of the squared error against them. [b n r q]
        history, condition, rays, correspondence: as in ChunkInputs.
        captions: bytes. [b s]
        last_frames: in [-1, 1]. [b 3 h w]
    """

    first: Tensor
    again: Tensor
    compared: Tensor
    critic: Tensor
    level: Tensor
    compared_level: Tensor
    critic_level: Tensor
    target: Tensor
    anchor: Tensor
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


class StudentAndCritic(nn.Module):
    """What a distillation trains; both begin as the teacher."""

    def __init__(self, teacher: MiniNetworks) -> None:
        super().__init__()
        self.student, self.critic = copy.deepcopy(teacher), copy.deepcopy(teacher)


def student_batch(
    rows: ChunkRows,
    layout: HistoryLayout,
    config: StudentConfig,
    flow: FlowConfig,
    rollout: RolloutConfig,
    generator: torch.Generator,
) -> StudentBatch:
    """Draw noise and levels for samples; arguments as of training.flow.flow_batch."""
    device, count = rows.target.device, len(rows)
    levels = distilled_schedule(config.entries, rollout.shift).sigmas[:-1].to(device)
    schedule = flow.schedule()
    sigmas = schedule.sigmas.to(device).clamp(LOWEST, HIGHEST)
    inputs = noised_slots(rows.inputs(layout, rollout), layout, flow, generator)
    holes = hole_share(rows)

    def noise() -> Tensor:
        return torch.randn(rows.target.shape, generator=generator, device=device)

    return StudentBatch(
        first=noise(),
        again=noise(),
        compared=noise(),
        critic=noise(),
        level=levels[torch.randint(len(levels), (count,), generator=generator, device=device)],
        compared_level=sigmas[schedule.draw(count, generator)],
        critic_level=sigmas[schedule.draw(count, generator)],
        target=rows.target.float(),
        anchor=config.anchor + (config.hole_anchor - config.anchor) * holes,
        history=inputs.history,
        condition=inputs.condition,
        rays=inputs.rays,
        correspondence=inputs.correspondence,
        captions=rows.captions,
        last_frames=rows.last_frames(),
    )


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Clean latents [b c n r q] and noise at levels [b]."""
    sigma = level[:, None, None, None, None]
    return (1 - sigma) * clean + sigma * noise


def clean_latents(networks: MiniNetworks, context: PreparedContext, noisy: Tensor, level: Tensor) -> Tensor:
    """The clean latents a network sees in noisy ones."""
    velocity = networks.dit(noisy, level * NUM_TRAIN_TIMESTEPS, context)
    return noisy - level[:, None, None, None, None] * velocity.float()


def student_jump(student: MiniNetworks, batch: StudentBatch) -> Tensor:
    """Clean latents by the student, from its own first jump noised again; gradients through the last jump."""
    context = batch.context(student)
    with torch.no_grad():
        start = clean_latents(student, context, batch.first, torch.ones_like(batch.level))
    return clean_latents(student, context, noised(start, batch.again, batch.level), batch.level)


def critic_losses(both: StudentAndCritic, batch: StudentBatch) -> dict[str, Tensor]:
    """The critic's flow-matching loss on what the student makes; the student does not move."""
    with torch.no_grad():
        made = student_jump(both.student, batch)
    error = _critic_error(both.critic, batch, made)
    return {"loss": error, "critic": error.detach()}


def _critic_error(critic: MiniNetworks, batch: StudentBatch, made: Tensor) -> Tensor:
    noisy = noised(made, batch.critic, batch.critic_level)
    velocity = critic.dit(noisy, batch.critic_level * NUM_TRAIN_TIMESTEPS, batch.context(critic))
    return (velocity.float() - (batch.critic - made)).square().mean()


def matching_loss(
    made: Float[Tensor, "b c n r q"], real: Float[Tensor, "b c n r q"], fake: Float[Tensor, "b c n r q"]
) -> Float[Tensor, ""]:
    """Its gradient by what was made is the difference of two views of that, over the mean distance to the real one.

    Yin et al. 2024, "One-step Diffusion with Distribution Matching Distillation", equations 7 and 8.

    Args:
        made: by the student.
        real: clean latents the teacher sees in it, noised.
        fake: those the critic sees.
    """
    scale = (made.detach() - real).abs().flatten(1).mean(1).clamp(min=1e-3)[:, None, None, None, None]
    towards = (made - (fake - real) / scale).detach()
    return 0.5 * (made - towards).square().mean()


def student_losses(both: StudentAndCritic, teacher: MiniNetworks, batch: StudentBatch) -> dict[str, Tensor]:
    """The student's loss and the critic's: one step of both."""
    made = student_jump(both.student, batch)
    with torch.no_grad():
        noisy = noised(made, batch.compared, batch.compared_level)
        real = clean_latents(teacher, batch.context(teacher), noisy, batch.compared_level)
        fake = clean_latents(both.critic, batch.context(both.critic), noisy, batch.compared_level)
    student, critic = matching_loss(made, real, fake), _critic_error(both.critic, batch, made.detach())
    anchor = 0.5 * ((made - batch.target).square().mean(1) * batch.anchor).mean()
    row = {"student": student.detach(), "anchor": anchor.detach(), "critic": critic.detach()}
    return {"loss": student + anchor + critic, **row}
