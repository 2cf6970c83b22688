"""Noise levels: which sigmas a sampler visits, and which ones training draws.

Flow matching (Lipman et al. 2023; Liu et al. 2023, "Rectified Flow"): x = (1 - sigma) clean +
sigma noise, velocity = noise - clean. Timesteps are 1000 sigma. The shift moves levels towards
noise, as large pictures need: Esser et al. 2024, "Scaling Rectified Flow Transformers", section
5.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra_core.errors import RecipeError

NUM_TRAIN_TIMESTEPS = 1000
DEFAULT_SHIFT = 5.0
DISTILLED_ENTRIES = (0, 250, 500, 750)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSchedule:
    """The levels a sampler visits, from noise to clean.

    Attributes:
        sigmas: one more than there are steps; the last is 0. [n+1] float32
        timesteps: what the network is told at each step. [n], integer or float32
    """

    sigmas: Float[Tensor, " n1"]
    timesteps: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSchedule:
    """The levels a training step draws from, from noise to almost clean.

    Attributes:
        sigmas: [n] float32
        timesteps: 1000 sigma. [n] float32
        weights: of the loss at each level, mean 1. [n] float32
    """

    sigmas: Float[Tensor, " n"]
    timesteps: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """Entries with logit-normal noise levels (Esser et al. 2024, section 3.1). [count] int64"""
        normal = torch.randn(count, generator=generator, device=generator.device)
        return (torch.sigmoid(normal) * len(self.sigmas)).long().clamp(max=len(self.sigmas) - 1)


def shift_sigmas(sigmas: Float[Tensor, " n"], shift: float) -> Float[Tensor, " n"]:
    """Move levels towards noise; 0 and 1 stay."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def _require_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise RecipeError(f"a sampler needs at least 1 step, found {num_steps}")


def unipc_schedule(num_steps: int, shift: float = DEFAULT_SHIFT) -> FlowSchedule:
    """Levels of the multistep solver.

    The network is told whole timesteps, rounded down, while the solver uses the exact sigmas: the
    released weights were sampled that way.

    Raises:
        RecipeError: no steps.
    """
    _require_steps(num_steps)
    highest = (NUM_TRAIN_TIMESTEPS - 1) / NUM_TRAIN_TIMESTEPS
    base = torch.linspace(highest, 0.0, num_steps + 1, dtype=torch.float64)[:-1]
    shifted = shift_sigmas(base, shift)
    return FlowSchedule(
        sigmas=torch.cat((shifted, shifted.new_zeros(1))).float(),
        timesteps=(shifted * NUM_TRAIN_TIMESTEPS).long(),
    )


def euler_schedule(num_steps: int, shift: float = DEFAULT_SHIFT) -> FlowSchedule:
    """Levels from 1 to 0 for plain Euler steps, with exact timesteps.

    Raises:
        RecipeError: no steps.
    """
    _require_steps(num_steps)
    base = torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64)
    sigmas = shift_sigmas(base, shift).float()
    return FlowSchedule(sigmas=sigmas, timesteps=sigmas[:-1] * NUM_TRAIN_TIMESTEPS)


def training_sigmas(shift: float = DEFAULT_SHIFT) -> Float[Tensor, " n"]:
    """The 1000 levels of training, from 1 down. [1000] float32"""
    lowest = 1 / NUM_TRAIN_TIMESTEPS
    base = torch.linspace(1.0, lowest, NUM_TRAIN_TIMESTEPS, dtype=torch.float64)
    return shift_sigmas(base, shift).float()


def distilled_schedule(entries: tuple[int, ...] = DISTILLED_ENTRIES, shift: float = DEFAULT_SHIFT) -> FlowSchedule:
    """Levels of a few-step student: some entries of the training levels, then 0.

    Raises:
        RecipeError: no entries, entries outside the training levels or not ascending.
    """
    inside = all(0 <= entry < NUM_TRAIN_TIMESTEPS for entry in entries)
    if not entries or not inside or list(entries) != sorted(set(entries)):
        raise RecipeError(f"distilled entries must ascend from 0 to 999, found {entries}")
    sigmas = training_sigmas(shift)[list(entries)]
    return FlowSchedule(sigmas=torch.cat((sigmas, sigmas.new_zeros(1))), timesteps=sigmas * NUM_TRAIN_TIMESTEPS)


def training_schedule(shift: float = DEFAULT_SHIFT) -> TrainingSchedule:
    """Levels and loss weights of training.

    The weights are a bell over the timesteps, exp(-2 ((t - 500) / 1000)^2), lowered so that the
    smallest is 0 and scaled to mean 1: the middle of the path is the hardest to learn.
    """
    sigmas = training_sigmas(shift)
    timesteps = sigmas * NUM_TRAIN_TIMESTEPS
    bell = torch.exp(-2 * ((timesteps - NUM_TRAIN_TIMESTEPS / 2) / NUM_TRAIN_TIMESTEPS) ** 2)
    bell = bell - bell.min()
    return TrainingSchedule(sigmas=sigmas, timesteps=timesteps, weights=bell / bell.mean())
