"""Options of `lyra train mini` become steps and a plan of the machine; those that do not fit are refused."""

from pathlib import Path

import pytest

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.mini.manifest import MINI_FOLDER
from lyra_core.train_commands.mini_options import MiniOptions
from lyra_core.train_commands.mini_plan import plan_pipeline


def test_options_become_a_plan(tmp_path):
    steps, config = plan_pipeline(MiniOptions(out=tmp_path, device="cpu", gpus=2, start_from=MINI_FOLDER))
    assert {"vae", "table"} <= {step.name for step in steps}
    assert (config.gpus, config.is_spread, config.places["start"]) == (("0", "1"), False, str(MINI_FOLDER))
    assert config.digests["start"]
    assert all(Path(config.places[name]).is_absolute() for name in ("views", "photographs"))
    chosen = plan_pipeline(MiniOptions(out=Path("x"), device="cpu", only=["pack", "table*"]))[1].chosen
    assert chosen[0] == "pack"
    assert {"table", "table-drift"} < set(chosen)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"debug": True, "start_from": Path("x")}, ConfigError, "tiny networks begin from nothing"),
        ({"start_from": Path("nowhere")}, WeightsError, "nowhere"),
        ({"start_from": Path("x/weights")}, ConfigError, "where the new weights go"),
        ({"minutes_scale": 0.0}, ConfigError, "positive"),
        ({"only": ["vea"]}, ConfigError, "none is vea"),
        ({"gpus": 0}, ConfigError, "wanted 0 GPUs"),
    ],
)
def test_options_that_do_not_fit_are_refused(choices, error, message):
    with pytest.raises(error, match=message):
        plan_pipeline(MiniOptions(out=Path("x"), device="cpu", **choices))
