from math import exp

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.video.sampler import (
    Guidance,
    guided_velocity,
    reference_noise,
    sample_distilled,
    sample_euler,
    sample_unipc,
)
from lyra_core.video.schedule import distilled_schedule, euler_schedule, unipc_schedule

GUIDANCE = 5.0


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "sampler.safetensors")


@pytest.fixture(scope="module")
def chunk(golden, golden_dit, seeded):
    """The chunk of the complete samplings, and its negative caption."""
    config = golden_dit.config
    b, channels, generated, h, w = golden["inference.init_noise_seed1"].shape
    layout = golden_dit.layout((1, 4, 1, 16, 2, 1), generated)
    size = (layout.num_slots, h, w)
    history = seeded(301, (b, channels, layout.num_history, h, w))
    latents = torch.cat((history, seeded(302, (b, channels, generated, h, w))), dim=2)
    y = torch.cat(
        (
            torch.ones(b, config.condition_channels - channels, *size),
            latents,
            seeded(303, (b, config.ray_channels, *size)),
        ),
        dim=1,
    )
    text_shape = golden_dit.io["A.in.ctx"].shape
    inputs = golden_dit.inputs(
        history,
        y,
        seeded(304, (b, config.correspondence_channels, *size)).tanh(),
        seeded(305, text_shape),
        seeded(307, golden_dit.io["A.in.clip"].shape),
        layout.num_history,
    )
    return inputs, seeded(306, text_shape), layout


def test_golden_initial_noise(golden):
    wanted = golden["inference.init_noise_seed1"]
    assert torch.equal(reference_noise(tuple(wanted.shape), 1), wanted)


def test_golden_unipc_trajectory(golden, assert_close):
    wanted, found = golden["unipc.traj"], []
    schedule = unipc_schedule(len(wanted))
    sigmas = iter(schedule.sigmas.tolist())
    sample_unipc(
        lambda x, _: x * next(sigmas) - 0.3,
        golden["unipc.traj.x0"],
        schedule,
        lambda _, x: found.append(x),
    )
    assert_close(torch.stack(found), wanted)


@torch.no_grad()
def test_golden_guided_sampling(golden, tiny_dit, chunk, assert_close):
    inputs, negative, layout = chunk
    context = tiny_dit.prepare_context(inputs, layout=layout)
    velocity = guided_velocity(tiny_dit, context, tiny_dit.prepare_text(negative), GUIDANCE)
    found = sample_unipc(velocity, golden["inference.init_noise_seed1"], unipc_schedule(6))
    assert_close(found, golden["inference.steps6"])


@torch.no_grad()
def test_golden_distilled_sampling(golden, tiny_dit, chunk, assert_close):
    inputs, _, layout = chunk
    noise = golden["inference.init_noise_seed1"]
    context = tiny_dit.prepare_context(inputs, layout=layout)
    # A view whose memory is channel-major is filled serially and in memory order, as the
    # reference's was; the tensors inference_dmd.noises were drawn contiguously: other numbers.
    generator = torch.Generator().manual_seed(77)
    memory = (noise.shape[1], layout.num_slots, *noise.shape[3:])

    def draw(step):
        slots = torch.empty(memory).transpose(0, 1).normal_(generator=generator)
        return slots[layout.num_history :].transpose(0, 1)[None]

    found = sample_distilled(lambda x, t: tiny_dit(x, t, context), noise, distilled_schedule(), draw)
    assert_close(found, golden["inference_dmd.manual_seed77"])


def linear_problem(clean_at):
    """The velocity field that leads every start straight to `clean_at`."""
    return lambda x, t: (x - clean_at) / (t.double() / 1000).reshape(-1, 1, 1, 1, 1)


def test_samplers_reach_a_fixed_target():
    noise, target = torch.randn(2, 1, 3, 2, 2, 2).double()
    schedule = euler_schedule(5)
    found = sample_euler(linear_problem(target), noise, schedule)
    assert torch.allclose(found, target, atol=1e-4)
    found = sample_distilled(linear_problem(target), noise, distilled_schedule(), lambda _: torch.randn_like(noise))
    assert torch.allclose(found.double(), target, atol=1e-4)


def test_unipc_is_of_second_order():
    # dx/dsigma = x with x(1) = 1 has the solution exp(sigma - 1).
    start = torch.ones(1, 1, 1, 1, 1)

    def error(sampler, schedule):
        return abs(float(sampler(lambda x, _: x, start, schedule)) - exp(-float(schedule.sigmas[0])))

    coarse, fine = (error(sample_unipc, unipc_schedule(steps)) for steps in (20, 40))
    assert coarse > 3.5 * fine  # second order
    assert fine < 0.1 * error(sample_euler, euler_schedule(40))


def test_steps_are_observed_in_order():
    seen = []
    sample_unipc(lambda x, _: x, torch.ones(1, 1, 1, 1, 1), unipc_schedule(4), lambda i, _: seen.append(i))
    assert seen == [0, 1, 2, 3]


@torch.no_grad()
def test_guidance_of_one_skips_the_negative_branch(tiny_dit, golden_dit):
    inputs, latents, timestep, layout = golden_dit.case_a()
    context = tiny_dit.prepare_context(inputs, layout=layout)
    calls = []
    hook = tiny_dit.register_forward_hook(lambda *_: calls.append(1))
    negative = tiny_dit.prepare_text(torch.zeros_like(inputs.text))
    alone = guided_velocity(tiny_dit, context, negative, 1.0)(latents, timestep)
    assert len(calls) == 1
    both = guided_velocity(tiny_dit, context, negative, 3.0)(latents, timestep)
    assert len(calls) == 3
    hook.remove()
    unguided = tiny_dit(latents, timestep, context.with_text(negative))
    assert torch.allclose(both, unguided + 3 * (alone - unguided), atol=1e-5)


@torch.no_grad()
def test_both_branches_in_one_pass_are_two_passes(tiny_dit, chunk, golden):
    inputs, negative, layout = chunk
    latents, timestep = golden["inference.init_noise_seed1"][:1], torch.tensor([700])
    context = tiny_dit.prepare_context(inputs, layout=layout)
    away = tiny_dit.prepare_text(negative)
    wanted = guided_velocity(tiny_dit, context, away, GUIDANCE)(latents, timestep)
    found = guided_velocity(tiny_dit, context, away, Guidance(scale=GUIDANCE, is_batched=True))(latents, timestep)
    assert not torch.equal(wanted, tiny_dit(latents, timestep, context)), "else guidance would do nothing here"
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("is_batched", [False, True])
def test_outside_its_interval_guidance_costs_nothing(tiny_dit, chunk, golden, is_batched):
    inputs, negative, layout = chunk
    latents = golden["inference.init_noise_seed1"][:1]
    context = tiny_dit.prepare_context(inputs, layout=layout)
    guidance = Guidance(scale=GUIDANCE, first_noise=0.8, last_noise=0.2, is_batched=is_batched)
    velocity = guided_velocity(tiny_dit, context, tiny_dit.prepare_text(negative), guidance)
    for level, acts in ((900, False), (800, True), (500, True), (100, False)):
        timestep = torch.tensor([level])
        assert torch.equal(velocity(latents, timestep), tiny_dit(latents, timestep, context)) != acts
