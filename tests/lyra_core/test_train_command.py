"""Options of `lyra train` reach the runs they are for; torchrun and the pipeline find the same commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.networks import MiniNetworks
from lyra_core.train_command import _arguments, vae_config, video_config
from lyra_core.training.depth_command import depth_config
from lyra_core.training.flow import VideoNetworks
from lyra_core.video.dit import TINY, build_dit

TIMED = ("--minutes", "1", "--out", "out")


def options(*arguments):
    return _arguments().parse_args([*arguments, *TIMED])


@pytest.mark.parametrize(("command", "config"), [("vae", vae_config), ("video", video_config), ("depth", depth_config)])
def test_the_learning_rate_is_the_one_asked_for(command, config):
    assert config(options(command, "--lr", "7e-4")).loop.learning_rate == 7e-4


def test_cuda_graphs_are_left_out_where_asked():
    assert depth_config(options("depth")).is_recorded
    assert not depth_config(options("depth", "--no-cuda-graph")).is_recorded


def test_weights_of_gan_and_student_have_defaults():
    assert options("vae", "--sharpen").gan_weight == 0.5
    assert options("vae", "--sharpen", "--gan-weight", "0.25").gan_weight == 0.25
    assert _arguments().parse_args(["pack", "--student-weight", "0.6"]).student_weight == 0.6


def test_an_adversarial_student_keeps_what_critics_see():
    config = video_config(options("video", "--adversarial", "--feature-weights", "lite0.safetensors"))
    assert config.adversarial is not None
    assert config.student is None
    assert config.chunks.kept_latents == config.adversarial.latents == 2
    assert config.adversarial.feature_weights == Path("lite0.safetensors")
    assert video_config(options("video")).chunks.kept_latents == 0


def test_lone_images_can_be_the_rule():
    usual, lone = (depth_config(options("depth", *more)) for more in ((), ("--window-every", "4")))
    assert [usual.is_lone(step) for step in range(6)] == [False, False, True] * 2
    assert [lone.is_lone(step) for step in range(5)] == [False, True, True, True, False]


def test_both_kinds_of_networks_can_be_trained_by_the_flow():
    released = ReleasedNetworks(build_dit(TINY), text=len, image=len)
    assert isinstance(released, VideoNetworks)
    assert isinstance(MiniNetworks(MINI_DIT), VideoNetworks)
    assert not isinstance(released.dit, VideoNetworks)


def test_the_module_runs_the_same_commands():
    """What torchrun and the steps of the pipeline start."""
    done = subprocess.run(
        [sys.executable, "-m", "lyra_core.training", "pack"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pack wants weights" in done.stderr
    assert "Traceback" not in done.stderr
