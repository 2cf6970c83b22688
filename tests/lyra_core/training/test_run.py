"""A run reports from its first process only, and pauses by time of training or by the clock."""

import time
from pathlib import Path

import pytest

from lyra_core.errors import ConfigError
from lyra_core.training.data_parallel import Replicas
from lyra_core.training.run import TrainingRun


def test_only_the_first_process_reports():
    lines = []
    for rank in (0, 1):
        TrainingRun(out_dir=Path(), replicas=Replicas(rank=rank, count=2), report=lines.append).say(f"process {rank}")
    assert lines == ["process 0"]
    TrainingRun(out_dir=Path()).say("nobody listens")


def test_a_run_pauses_after_seconds_or_at_a_time():
    assert not TrainingRun(out_dir=Path()).must_pause(1e9)
    timed = TrainingRun(out_dir=Path(), pause_after_s=5.0)
    assert (timed.must_pause(4.9), timed.must_pause(5.0)) == (False, True)
    assert TrainingRun(out_dir=Path(), pause_at=time.time() - 1).must_pause(0.0)
    assert not TrainingRun(out_dir=Path(), pause_at=time.time() + 600).must_pause(0.0)
    with pytest.raises(ConfigError, match="positive number of seconds"):
        TrainingRun(out_dir=Path(), pause_after_s=0)
