"""Distribution matching: no force where critic and teacher agree, else towards what the teacher sees."""

from dataclasses import replace

import pytest
import torch

from lyra_core.errors import ConfigError
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.networks import build_mini_networks
from lyra_core.training.distill import (
    StudentAndCritic,
    StudentBatch,
    StudentConfig,
    critic_losses,
    matching_loss,
    student_jump,
    student_losses,
)
from lyra_core.training.flow import random_inputs

CONFIG = replace(
    MINI_DIT,
    layout="f1k1f4s2f1s1f2k2f1k1_g2",
    dim=48,
    ffn_dim=96,
    num_heads=2,
    num_layers=1,
    squeeze_dim=8,
    text_dim=16,
    image_dim=16,
    time_dim=32,
)


def networks(seed):
    made = build_mini_networks(CONFIG, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    inputs = random_inputs(CONFIG, 2, 4, 8, generator)
    noise = [torch.randn(2, CONFIG.latent_channels, 2, 4, 8, generator=generator) for _ in range(5)]
    return StudentBatch(
        **dict(zip(("first", "again", "compared", "critic", "target"), noise, strict=True)),
        anchor=torch.zeros(2, 2, 4, 8),
        level=torch.tensor([1.0, 0.5]),
        compared_level=torch.tensor([0.4, 0.8]),
        critic_level=torch.tensor([0.3, 0.6]),
        history=inputs.history,
        condition=inputs.condition,
        rays=inputs.rays,
        correspondence=inputs.correspondence,
        captions=torch.zeros(2, 96, dtype=torch.uint8),
        last_frames=torch.zeros(2, 3, 32, 64),
    )


def test_no_force_where_critic_and_teacher_agree(batch):
    teacher = networks(1)
    both = StudentAndCritic(teacher)
    losses = student_losses(both, teacher, batch)
    losses["loss"].backward()
    assert float(losses["student"]) == 0
    assert all(p.grad is None or not p.grad.any() for p in both.student.parameters())
    assert any(p.grad is not None and p.grad.any() for p in both.critic.parameters())


def test_where_it_is_anchored_the_student_is_drawn_to_the_truth(batch):
    anchored = batch.anchor.clone()
    anchored[:, :, :, :4] = 1.0
    teacher = networks(1)
    both = StudentAndCritic(teacher)
    with torch.no_grad():
        errors = (student_jump(both.student, batch) - batch.target).square().mean(1)
    losses = student_losses(both, teacher, replace(batch, anchor=anchored))
    torch.testing.assert_close(losses["anchor"], 0.25 * errors[..., :4].mean())
    losses["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in both.student.parameters())


def test_the_force_is_the_difference_of_the_two_views():
    generator = torch.Generator().manual_seed(0)
    made, real, fake = (torch.randn(2, 3, 2, 4, 4, generator=generator) for _ in range(3))
    made.requires_grad_()
    matching_loss(made, real, fake).backward()
    distance = (made.detach() - real).abs().mean((1, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(made.grad, (fake - real) / distance / made.numel())


def test_a_critic_that_sees_what_was_made_pulls_it_to_the_teacher():
    generator = torch.Generator().manual_seed(0)
    made, real = (torch.randn(1, 3, 2, 4, 4, generator=generator) for _ in range(2))
    made.requires_grad_()
    matching_loss(made, real, made.detach()).backward()
    moved = made.detach() - 0.1 * made.numel() * made.grad
    assert (moved - real).abs().mean() < 0.95 * (made - real).abs().mean()


def test_the_critic_alone_leaves_the_student(batch):
    both = StudentAndCritic(networks(1))
    critic_losses(both, batch)["loss"].backward()
    assert all(p.grad is None for p in both.student.parameters())


def test_a_student_needs_a_critic():
    with pytest.raises(ConfigError, match="at least 1 step"):
        StudentConfig(critic_steps=0)
