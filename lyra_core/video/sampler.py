"""Turns noise into latents by following the predicted velocity, with three solvers.

`sample_unipc` (many steps, second order), `sample_distilled` (few steps of a student that jumps to
the clean latents and is noised again) and `sample_euler` (the plain ODE). All work on the generated
slots in fp32; the network casts. The reference implementation carries the history along with
velocity 0, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import expm1, inf, log

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.video.dit.attention import KeyValue
from lyra_core.video.dit.context import PreparedContext
from lyra_core.video.dit.network import DiT
from lyra_core.video.schedule import FlowSchedule

Latents = Float[Tensor, "b c t h w"]
Velocity = Callable[[Tensor, Tensor], Tensor]
"""Latents [b c t h w] and timesteps [b] to the velocity noise - clean [b c t h w]."""
Observe = Callable[[int, Tensor], None]
"""Called after each step with its index and the latents it led to."""


def _ignore(step: int, latents: Tensor) -> None:
    del step, latents


def reference_noise(shape: tuple[int, ...], seed: int) -> Float[Tensor, "*shape"]:
    """The initial noise the reference implementation draws for a seed, on the CPU, float32."""
    draws = np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy(draws.astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How far and where the network is led away from another caption.

    Attributes:
        scale: 1 follows the caption alone and skips the second branch.
        first_noise: noise level below or at which guidance begins; 1 guides from the first step on.
        last_noise: noise level at or above which it still acts; 0 guides to the end. Between both: Kynkaanniemi et al.
            2024, "Applying Guidance in a Limited Interval", section 3.
        is_batched: both branches in one pass, which takes more memory.
    """

    scale: float
    first_noise: float = 1.0
    last_noise: float = 0.0
    is_batched: bool = False

    def acts_at(self, timestep: Tensor) -> bool:
        """Whether the second branch is needed at a timestep (1000 times the noise level)."""
        if self.scale == 1.0:
            return False
        if self.first_noise >= 1.0 and self.last_noise <= 0.0:
            return True  # without asking the device
        return self.last_noise <= float(timestep.flatten()[0]) / 1000.0 <= self.first_noise


def guided_velocity(
    model: DiT, context: PreparedContext, unguided_text: tuple[KeyValue, ...], guidance: float | Guidance
) -> Velocity:
    """Classifier-free guidance (Ho & Salimans 2022, equation 6) away from another caption.

    Args:
        model: the network.
        context: the chunk under its caption.
        unguided_text: keys and values of the negative caption (DiT.prepare_text); all else is
            shared between the branches.
        guidance: its scale, or all about it.
    """
    chosen = guidance if isinstance(guidance, Guidance) else Guidance(scale=guidance)
    if chosen.scale == 1.0:
        return lambda latents, timestep: model(latents, timestep, context)
    unguided = context.with_text(unguided_text)
    # several devices take one caption at a time: they gain what a batch would
    both = context.with_both(unguided_text) if chosen.is_batched and model.team is None else None

    def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
        if not chosen.acts_at(timestep):
            return model(latents, timestep, context)
        if both is None:
            negative, positive = model(latents, timestep, unguided), model(latents, timestep, context)
        else:
            positive, negative = model(latents.repeat(2, 1, 1, 1, 1), timestep.repeat(2), both).chunk(2)
        return negative + chosen.scale * (positive - negative)

    return velocity


def _timesteps(schedule: FlowSchedule, step: int, latents: Tensor) -> Tensor:
    return schedule.timesteps[step].to(latents.device).expand(latents.shape[0])


def sample_euler(velocity: Velocity, noise: Latents, schedule: FlowSchedule, observe: Observe = _ignore) -> Latents:
    """Follow the velocity in straight steps."""
    latents = noise.float()
    for step, (sigma, sigma_next) in enumerate(pairwise(schedule.sigmas.tolist())):
        predicted = velocity(latents, _timesteps(schedule, step, latents))
        latents = latents + (sigma_next - sigma) * predicted
        observe(step, latents)
    return latents


def sample_distilled(
    velocity: Velocity,
    noise: Latents,
    schedule: FlowSchedule,
    draw_noise: Callable[[int], Tensor],
    observe: Observe = _ignore,
) -> Latents:
    """Jump to the clean latents and noise them again, level by level.

    Few-step student by distribution matching: Yin et al. 2024, "Improved Distribution Matching
    Distillation", section 4.4.

    Args:
        velocity: the student, without guidance.
        noise: initial noise. [b c t h w]
        schedule: levels, the last 0.
        draw_noise: gives the fresh noise after step i, of the latents' shape.
        observe: called after each step.
    """
    latents = noise.float()
    for step, (sigma, sigma_next) in enumerate(pairwise(schedule.sigmas.double().tolist())):
        predicted = velocity(latents, _timesteps(schedule, step, latents))
        clean = latents.double() - sigma * predicted.double()
        if sigma_next > 0:
            fresh = draw_noise(step).to(clean)
            latents = ((1 - sigma_next) * clean + sigma_next * fresh).float()
        else:
            latents = clean.float()
        observe(step, latents)
    return latents


def sample_unipc(velocity: Velocity, noise: Latents, schedule: FlowSchedule, observe: Observe = _ignore) -> Latents:
    """UniPC of order 2 with B(h) = expm1(h) on predictions of the clean latents.

    Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework", algorithms 1 and 2, section
    3.3 for B(h). Every step predicts the next latents; the following network call also corrects
    them. The first and the last step are of order 1.
    """
    sigmas = schedule.sigmas.double().tolist()
    latents, previous, order = noise.float(), noise.float(), 1
    clean: list[Tensor] = []
    for step, sigma in enumerate(sigmas[:-1]):
        predicted = velocity(latents, _timesteps(schedule, step, latents))
        clean.append(latents - sigma * predicted)
        if step > 0:
            latents = _correct(previous, clean, sigmas[: step + 1], order)
        order = min(2, step + 1, len(schedule) - step)
        previous, clean = latents, clean[-2:]
        latents = _predict(latents, clean, sigmas[: step + 2], order)
        observe(step, latents)
    return latents


def _log_snr(sigma: float) -> float:
    """Half the log signal-to-noise ratio, infinite where there is no noise."""
    return inf if sigma == 0 else log((1 - sigma) / sigma) if sigma < 1 else -inf


def _predict(x: Tensor, clean: list[Tensor], sigmas: list[float], order: int) -> Tensor:
    """From the last but one level to the last, by the newest `order` clean predictions."""
    start, end = sigmas[-2:]
    h = _log_snr(end) - _log_snr(start)
    phi = expm1(-h)
    following = (end / start) * x - (1 - end) * phi * clean[-1]
    if order == 2:
        ratio = (_log_snr(sigmas[-3]) - _log_snr(start)) / h
        following = following - (1 - end) * phi * 0.5 * (clean[-2] - clean[-1]) / ratio
    return following


def _correct(x: Tensor, clean: list[Tensor], sigmas: list[float], order: int) -> Tensor:
    """The same step again, now that the clean prediction at its end, clean[-1], is known."""
    start, end = sigmas[-2:]
    h = _log_snr(end) - _log_snr(start)
    phi = expm1(-h)
    corrected = (end / start) * x - (1 - end) * phi * clean[-2]
    if order == 1:
        return corrected - (1 - end) * phi * 0.5 * (clean[-1] - clean[-2])
    # The 2 x 2 system R rho = b of the paper's equation 12: rows are powers of the ratios (r, 1).
    ratio = (_log_snr(sigmas[-3]) - _log_snr(start)) / h
    first = (phi / -h - 1) / phi
    second = 2 * ((phi / -h - 1) / -h - 0.5) / phi
    rho = (second - first) / (ratio - 1)
    slope = (clean[-3] - clean[-2]) / ratio
    return corrected - (1 - end) * phi * (rho * slope + (first - rho) * (clean[-1] - clean[-2]))
