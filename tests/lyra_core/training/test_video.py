"""The video network learns two small places within seconds, and a resumed run is the same bit for bit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import ConfigError
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.vae import TINY_MINI_VAE
from lyra_core.procedural.chunks import ChunkConfig
from lyra_core.procedural.clip_maker import MixConfig
from lyra_core.procedural.world_clips import PathPlan
from lyra_core.training import video
from lyra_core.training.checkpoint import FULL_CHECKPOINT
from lyra_core.training.distill import StudentConfig
from lyra_core.training.loop_config import LoopConfig
from lyra_core.training.run import TrainingRun
from lyra_core.training.video import train_video
from lyra_core.training.video_config import VideoTrainingConfig
from lyra_core.weights.ema_weights import WEIGHTS

TINY_DIT = replace(
    MINI_DIT,
    layout="f1k1f4s2f1s1f2k2f1k1_g2",
    dim=48,
    ffn_dim=96,
    num_heads=2,
    num_layers=2,
    squeeze_dim=8,
    text_dim=16,
    image_dim=16,
    time_dim=32,
)
PATHS = PathPlan(num_frames=17, names=("wander", "wander-and-return"), takes=1, max_stride=1)


def config(steps, **changes):
    fields = {
        "loop": LoopConfig(max_steps=steps, learning_rate=4e-3, warmup_steps=5, log_every=1, **changes.pop("loop", {})),
        "vae": TINY_MINI_VAE,
        "dit": TINY_DIT,
        "chunks": ChunkConfig(num_chunks=2),
        "height": 32,
        "width": 64,
        "batch": 4,
        "plan": PATHS,
        "num_scenes": 2,
        "num_held_out": 1,
        "textures_per_kind": 1,
        "texture_size": 32,
        "pool_rows": 24,
        "first_rows": 4,
        "clips_at_once": 1,
        "steps_per_refill": 10,
        "augment_from": 5,
        "supersample": 1,
    }
    return VideoTrainingConfig(**{**fields, **changes})


def test_overfits_two_scenes(tmp_path):
    result = train_video(config(40), TrainingRun(out_dir=tmp_path))
    losses = [row["loss"] for row in result.metrics if "loss" in row]
    assert sum(losses[-8:]) / 8 < 0.7 * sum(losses[:4]) / 4
    assert load_file(tmp_path / WEIGHTS)["dit.patch_embedding.weight"].dtype == torch.bfloat16
    assert (tmp_path / video.SAMPLES).stat().st_size > 1000
    assert {"worlds_seen_8", "worlds_new_16"} <= set(result.metrics[-1])


def test_resume_is_bit_exact(tmp_path, monkeypatch):
    plan = config(4, pool_rows=0, batch=2, augment_from=1, loop={"checkpoint_every_s": 1e-9})
    monkeypatch.setattr(video, "measure", lambda *_: {})
    monkeypatch.setattr(video, "save_samples", lambda *_: None)
    whole = train_video(plan, TrainingRun(out_dir=tmp_path / "whole"))
    loss, calls = video.flow_loss, []

    def killed_in_the_third_step(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(video, "flow_loss", killed_in_the_third_step)
    with pytest.raises(KeyboardInterrupt):
        train_video(plan, TrainingRun(out_dir=tmp_path / "half"))
    monkeypatch.setattr(video, "flow_loss", loss)
    again = train_video(plan, TrainingRun(out_dir=tmp_path / "half", resume_from=tmp_path / "half" / FULL_CHECKPOINT))
    for name, value in whole.ema.items():
        assert torch.equal(value, again.ema[name]), name


def test_a_mix_splits_batches_and_refuses_nothing_at_all():
    assert MixConfig(i2v=1.0, plain=2.0, augmented=1.0).counts(32) == {"i2v": 8, "plain": 16, "augmented": 8}
    assert sum(MixConfig().counts(7).values()) == 7
    with pytest.raises(ConfigError, match="not all 0"):
        MixConfig(i2v=0.0, plain=0.0, augmented=0.0)


def test_a_student_moves_towards_its_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "measure", lambda *_: {})
    monkeypatch.setattr(video, "save_samples", lambda *_: None)
    train_video(config(3), TrainingRun(out_dir=tmp_path / "teacher"))
    plan = config(5, student=StudentConfig(critic_steps=2), first_rows=4)
    with pytest.raises(ConfigError, match="start_from"):
        train_video(plan, TrainingRun(out_dir=tmp_path / "student"))
    result = train_video(plan, TrainingRun(out_dir=tmp_path / "student", start_from=tmp_path / "teacher" / WEIGHTS))
    teacher, student = (load_file(tmp_path / name / WEIGHTS) for name in ("teacher", "student"))
    assert teacher.keys() == student.keys()
    assert any(not torch.equal(teacher[name], student[name]) for name in teacher)
    assert [("student" in row) for row in result.metrics if "loss" in row] == [False, True, False, True, False]
