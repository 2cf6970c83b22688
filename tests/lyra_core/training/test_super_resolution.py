"""Training of super-resolution: samples of a few small scenes, a run of some steps, and its command."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from lyra_core.image_features import ImageFeatures, save_image_features
from lyra_core.mini.files import load_mini_depth, load_super_resolution, write_component
from lyra_core.mini.manifest import SUPER_RESOLUTION
from lyra_core.mini.super_resolution import TINY_SUPER_RESOLUTION
from lyra_core.procedural.clip_maker import photo_library
from lyra_core.procedural.world_clips import WorldLibrary
from lyra_core.train_commands.app import main
from lyra_core.training.detail_batch import make_batch
from lyra_core.training.detail_samples import DetailMaker, DetailSamples
from lyra_core.training.loop import LoopConfig
from lyra_core.training.run import TrainingRun
from lyra_core.training.super_resolution import (
    CRITIC_LEVELS,
    DetailLosses,
    HeldOut,
    SuperResolutionTrainingConfig,
    train_super_resolution,
)
from lyra_core.weights.ema_weights import WEIGHTS, read_weights

EXAMPLES = Path(__file__).parents[3] / "examples"
SIZE = (32, 56)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "lite0.safetensors"
    torch.manual_seed(0)
    save_image_features(ImageFeatures("lite0", levels=CRITIC_LEVELS), path)
    return path


@pytest.fixture(scope="module")
def samples():
    """Photographs on planes: rendering scenes at full size takes too long here."""
    worlds = object.__new__(WorldLibrary)  # photographs ask it for its size alone; paths of scenes take half a minute
    worlds.size = SIZE
    maker = DetailMaker(worlds, photo_library(EXAMPLES, "train", torch.device("cpu")), load_mini_depth())
    return maker.photographs(3, torch.Generator().manual_seed(1))


def config(features, steps, **changes):
    return SuperResolutionTrainingConfig(
        loop=LoopConfig(max_steps=steps, max_seconds=None, learning_rate=3e-3, warmup_steps=2, precision="float32"),
        model=TINY_SUPER_RESOLUTION,
        losses=DetailLosses(critic_first=steps // 2),
        batch=2,
        side=(16, 24),
        features=features,
        **changes,
    )


def test_a_batch_holds_the_truth_of_what_it_asks_for(samples):
    batch = make_batch(samples[slice(0, 2)], SIZE, torch.Generator().manual_seed(0))
    assert batch.frame.shape == (2, 3, 4 * SIZE[0], 4 * SIZE[1])
    assert batch.low_frame.shape == (2, 3, *SIZE)
    assert float((batch.frame.abs()).max()) <= 1.0
    mean = torch.nn.functional.avg_pool2d(batch.frame, 4)
    # the low-resolution frame is the truth's mean, disturbed as a generated one
    assert float((mean - batch.low_frame).abs().mean()) < 0.1
    both = DetailSamples.joined([samples[slice(0, 1)], samples[slice(1, 3)]])
    assert torch.equal(both.kind, samples.kind)


def test_some_steps_reduce_the_error_and_leave_weights_that_load(samples, features, tmp_path):
    held_out = HeldOut(sets={"photos": samples})
    lines = []
    run = TrainingRun(out_dir=tmp_path / "run", report=lines.append)
    result = train_super_resolution(config(features, 12), samples, held_out, run)
    rows = [row for row in result.metrics if "psnr_photos" in row]
    assert rows
    assert all(math.isfinite(value) for row in result.metrics for value in row.values())
    assert rows[-1]["over_bicubic_photos"] > 0.0
    state = read_weights(run.out_dir / WEIGHTS, SUPER_RESOLUTION)
    write_component(tmp_path / "packed", SUPER_RESOLUTION, state, TINY_SUPER_RESOLUTION)
    assert load_super_resolution(tmp_path / "packed").config == TINY_SUPER_RESOLUTION
    assert (run.out_dir / "enlarged.jpg").is_file()


@pytest.mark.slow
def test_the_command_trains_on_all_three_kinds_of_samples(features, tmp_path):
    arguments = ["--minutes", "0.05", "--device", "cpu", "--samples", "3", "--fill-minutes", "2", "--held-out", "1"]
    out = ["--out", str(tmp_path / "run"), "--photographs", str(EXAMPLES), "--feature-weights", str(features)]
    assert main(["super-resolution", "--debug", *arguments, *out]) == 0
    assert (tmp_path / "run" / "summary.json").is_file()
    assert "lyra_core.training.super_resolution" in sys.modules
