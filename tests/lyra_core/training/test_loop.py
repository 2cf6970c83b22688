"""The loop learns, resumes bit for bit, and refuses what it cannot continue."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lyra_core.errors import ConfigError, TrainingError, WeightsError
from lyra_core.training.checkpoint import FULL_CHECKPOINT, STATE
from lyra_core.training.loop import step_generator, train
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.metrics import CURVE, METRICS
from lyra_core.training.run import TrainingRun
from lyra_core.weights.ema_weights import WEIGHTS

TRUTH = torch.tensor([[1.0, -2.0, 0.5]])


def model():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def loss_of(net, step):
    x = torch.randn(32, 3, generator=step_generator(1, step))
    error = net(x.to(net[0].weight.dtype)) - x @ TRUTH.T  # it may be the bf16 copy
    return {"loss": error.square().mean()}


def config(steps):
    return LoopConfig(max_steps=steps, learning_rate=2e-2, warmup_steps=5, log_every=5)


class KilledError(Exception):
    pass


def test_training_lowers_the_loss_and_leaves_its_files(tmp_path):
    result = train(model(), loss_of, config(150), TrainingRun(out_dir=tmp_path), lambda net: {"score": 1.0})
    losses = [row["loss"] for row in result.metrics if "loss" in row]
    assert losses[-1] < 0.2 * losses[0]
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert rows[-1]["score"] == 1.0
    weights = load_file(tmp_path / WEIGHTS)
    assert weights["0.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(weights["0.weight"].float(), result.ema["0.weight"], atol=0.01, rtol=0.01)
    assert (tmp_path / CURVE).stat().st_size > 1000


def test_resumed_run_equals_the_unbroken_one_bit_for_bit(tmp_path):
    whole = model()
    unbroken = train(whole, loss_of, config(40), TrainingRun(out_dir=tmp_path / "whole"))

    def dies_at_17(net, step):
        if step == 17:
            raise KilledError
        return loss_of(net, step)

    broken = model()
    # a checkpoint after every step, as a kill would find it
    every = LoopConfig(max_steps=40, learning_rate=2e-2, warmup_steps=5, log_every=5, checkpoint_every_s=1e-9)
    with pytest.raises(KilledError):
        train(broken, dies_at_17, every, TrainingRun(out_dir=tmp_path / "broken"))
    resumed = model()
    again = train(
        resumed,
        loss_of,
        config(40),
        TrainingRun(out_dir=tmp_path / "broken", resume_from=tmp_path / "broken" / FULL_CHECKPOINT),
    )
    assert again.step == 40
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(unbroken.ema[name], again.ema[name]), name


@pytest.mark.parametrize(
    ("precision", "losses", "average"),
    [
        ("float32", [4.88245, 4.65009, 2.69694, 5.12799], 3.88706),
        ("autocast", [4.875, 4.65625, 2.70312, 5.125], 3.88697),
        ("copy", [4.87932, 4.64981, 2.69763, 5.12862], 3.88670),
    ],
)
def test_the_first_steps_are_those_they_were(tmp_path, precision, losses, average):
    """Losses written down when the loop was one function: warm-up, cosine, AdamW, clipping and averages are in them."""
    plan = LoopConfig(max_steps=12, learning_rate=2e-2, warmup_steps=5, log_every=1, precision=precision, clip_norm=0.7)
    result = train(model(), loss_of, plan, TrainingRun(out_dir=tmp_path))
    assert [row["loss"] for row in result.metrics][::3] == pytest.approx(losses, rel=2e-3)
    squares = sum(float(value.double().square().sum()) for value in result.ema.values())
    assert squares == pytest.approx(average, rel=1e-3)


def test_rate_warms_up_and_decays():
    plan = LoopConfig(max_steps=100, learning_rate=1.0, final_rate=0.1, warmup_steps=10)
    rates = [plan.rate(step, 0.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.05)
    assert rates[-1] == pytest.approx(0.1, rel=0.01)
    timed = LoopConfig(max_seconds=60)
    assert timed.progress(10**6, 30.0) == pytest.approx(0.5)


def test_step_generators_are_independent_of_order_and_differ():
    first = torch.rand(4, generator=step_generator(3, 9))
    assert torch.equal(first, torch.rand(4, generator=step_generator(3, 9)))
    seen = {step_generator(seed, step).initial_seed() for seed in range(20) for step in range(200)}
    assert len(seen) == 4000


def test_impossible_runs_are_refused(tmp_path):
    with pytest.raises(ConfigError):
        LoopConfig()
    with pytest.raises(WeightsError, match="none at"):
        train(model(), loss_of, config(1), TrainingRun(out_dir=tmp_path, resume_from=tmp_path / "no.pt"))
    train(model(), loss_of, config(1), TrainingRun(out_dir=tmp_path))
    other = nn.Linear(3, 1)
    with pytest.raises(WeightsError, match="another model"):
        train(other, loss_of, config(2), TrainingRun(out_dir=tmp_path, resume_from=tmp_path / FULL_CHECKPOINT))


def test_a_run_pauses_at_a_time_and_its_state_says_how_far_it_came(tmp_path):
    paused = train(model(), loss_of, config(30), TrainingRun(out_dir=tmp_path, pause_at=time.time() - 1))
    assert paused.step == 1
    assert json.loads((tmp_path / STATE).read_text())["progress"] == pytest.approx(1 / 30)
    train(
        model(),
        loss_of,
        config(30),
        TrainingRun(out_dir=tmp_path, resume_from=tmp_path / FULL_CHECKPOINT, pause_at=time.time() + 600),
    )
    assert json.loads((tmp_path / STATE).read_text())["progress"] == 1


def test_a_paused_run_stops_early_and_can_be_finished(tmp_path):
    plan = LoopConfig(max_steps=400, learning_rate=2e-2, log_every=5)
    paused = train(model(), loss_of, plan, TrainingRun(out_dir=tmp_path, pause_after_s=0.05))
    assert 0 < paused.step < 400
    done = train(model(), loss_of, plan, TrainingRun(out_dir=tmp_path, resume_from=tmp_path / FULL_CHECKPOINT))
    assert done.step == 400


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    def diverges(net, step):
        return {"loss": net(torch.ones(1, 3)).sum() * (float("nan") if step >= 7 else 1.0)}

    with pytest.raises(TrainingError, match="diverged"):
        train(model(), diverges, config(50), TrainingRun(out_dir=tmp_path))
    assert not (tmp_path / FULL_CHECKPOINT).exists()
