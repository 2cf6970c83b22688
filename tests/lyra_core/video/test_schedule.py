import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import RecipeError
from lyra_core.video.schedule import (
    distilled_schedule,
    euler_schedule,
    shift_sigmas,
    training_schedule,
    training_sigmas,
    unipc_schedule,
)


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "sampler.safetensors")


@pytest.mark.parametrize("steps", [35, 50])
def test_golden_unipc_levels(golden, assert_close, steps):
    schedule = unipc_schedule(steps)
    assert_close(schedule.sigmas, golden[f"unipc.{steps}.sigmas"])
    assert torch.equal(schedule.timesteps, golden[f"unipc.{steps}.timesteps"])


def test_golden_distilled_levels(golden, assert_close):
    assert_close(training_sigmas(), golden["dmd.sigmas_1000"])
    assert_close(training_sigmas() * 1000, golden["dmd.timesteps_1000"])
    assert_close(distilled_schedule().timesteps, golden["dmd.steps"])


def test_golden_training_levels_and_weights(golden, assert_close):
    schedule = training_schedule()
    assert_close(schedule.sigmas, golden["rf.sigmas"])
    assert_close(schedule.timesteps, golden["rf.timesteps"])
    assert_close(schedule.weights, golden["rf.weights_reweighting"])


def test_shift_keeps_the_ends_and_moves_towards_noise():
    sigmas = torch.linspace(0, 1, 11)
    shifted = shift_sigmas(sigmas, 5.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert (shifted[1:-1] > sigmas[1:-1]).all()
    assert torch.equal(shift_sigmas(sigmas, 1.0), sigmas)


def test_euler_levels_start_at_noise_and_end_clean():
    schedule = euler_schedule(4)
    assert len(schedule) == 4
    assert schedule.sigmas[0] == 1
    assert schedule.sigmas[-1] == 0
    assert schedule.timesteps[0] == 1000


def test_training_draws_are_logit_normal_and_reproducible():
    schedule = training_schedule()
    drawn = schedule.draw(20_000, torch.Generator().manual_seed(5))
    assert torch.equal(drawn, schedule.draw(20_000, torch.Generator().manual_seed(5)))
    uniform = (drawn.float() + 0.5) / 1000
    logit = torch.log(uniform / (1 - uniform))
    assert abs(float(logit.mean())) < 0.03
    assert abs(float(logit.std()) - 1) < 0.03


@pytest.mark.parametrize("entries", [(), (0, 0), (500, 250), (0, 1000)])
def test_impossible_levels_are_refused(entries):
    with pytest.raises(RecipeError):
        distilled_schedule(entries)
    with pytest.raises(RecipeError):
        unipc_schedule(0)
    with pytest.raises(RecipeError):
        euler_schedule(0)
