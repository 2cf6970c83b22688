"""What a folder of weights can do, refused in one sentence before anything large is read; the schedule of noise."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch

from lyra_core.config.cosmos import CAMERA, IMAGE, IMAGE_STUDENT
from lyra_core.cosmos.checkpoint import (
    build_scheduler,
    load_components,
    read_checkpoint,
    require_fitting,
    require_library,
    require_memory,
)
from lyra_core.errors import MissingExtraError, OutOfMemoryError, RecipeError, WeightsError


def test_the_schedule_is_shifted(checkpoint, options):
    scheduler = build_scheduler(checkpoint, replace(options, num_steps=4))
    scheduler.set_timesteps(4)
    assert scheduler.config.use_karras_sigmas is False
    assert scheduler.sigmas[0] == pytest.approx(0.999999, abs=1e-5)
    assert scheduler.sigmas[:4].tolist() == pytest.approx([1.0, 0.968, 0.909, 0.770], abs=1e-3)
    flat = build_scheduler(checkpoint, replace(options, flow_shift=1.0))
    flat.set_timesteps(4)
    assert flat.sigmas[3] < 0.4


def test_the_published_spacing_can_be_had(checkpoint, options):
    scheduler = build_scheduler(checkpoint, replace(options, flow_shift=1.0, karras_sigmas=True))
    scheduler.set_timesteps(4)
    assert scheduler.sigmas[:4].tolist() == pytest.approx([0.995, 0.974, 0.799, 0.128], abs=1e-3)


def test_another_solver(checkpoint, options):
    scheduler = build_scheduler(checkpoint, replace(options, scheduler="euler"))
    assert type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert scheduler.config.shift == 10.0


def test_networks_have_the_chosen_dtypes_and_time_stays_float32(checkpoint):
    components = load_components(checkpoint, CAMERA, "cpu")
    assert components.transformer.dtype == components.vae.dtype == torch.bfloat16
    time = {p.dtype for name, p in components.transformer.named_parameters() if name.startswith("time_embedder")}
    assert time == {torch.float32}


def test_weights_without_camera_actions(tiny, tmp_path):
    still = read_checkpoint(tiny.write_published(tmp_path / "still", has_actions=False))
    with pytest.raises(RecipeError, match=r"still has no camera actions .*cosmos3-nano or cosmos3-super, or recipe"):
        require_fitting(still, CAMERA)
    require_fitting(still, IMAGE)


def test_a_student_follows_no_cameras_and_has_its_own_steps(tiny, tmp_path):
    student = read_checkpoint(tiny.write_published(tmp_path / "student", is_distilled=True))
    with pytest.raises(RecipeError, match="few-step student, which ignores cameras: mode='camera' needs"):
        require_fitting(student, CAMERA)
    with pytest.raises(RecipeError, match=r"4 levels without guidance, found num_steps=35 .*set cosmos.num_steps=4"):
        require_fitting(student, IMAGE)
    require_fitting(student, IMAGE_STUDENT)


def test_too_little_memory_is_known_before_loading(checkpoint):
    nano = replace(checkpoint, transformer_bytes=30_340_000_000, vae_bytes=1_410_000_000)
    require_memory(nano, CAMERA, 80 << 30)
    with pytest.raises(OutOfMemoryError, match=r"needs about 38 GiB of GPU memory at bfloat16, 24 GiB are free"):
        require_memory(nano, CAMERA, 24 << 30)
    with pytest.raises(OutOfMemoryError, match="float32"):
        require_memory(nano, replace(CAMERA, transformer_dtype="float32"), 60 << 30)


@pytest.mark.parametrize("package", ["diffusers", "accelerate"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, options):
    pytest.importorskip("diffusers")
    pytest.importorskip("accelerate")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*lyra-worlds\[cosmos\]"):
        require_library(options.library)


def test_another_version_of_the_library_makes_other_worlds(tiny, options):
    require_library(f"diffusers {version('diffusers')}")
    with pytest.raises(RecipeError, match=r"ids of these worlds say 'diffusers 0.1', found 'diffusers \d.*installed"):
        require_library("diffusers 0.1")


def test_incomplete_folders(checkpoint, tmp_path):
    with pytest.raises(WeightsError, match=r"transformer/config.json should hold a configuration of Cosmos 3"):
        read_checkpoint(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint.folder, copy)
    (copy / "modular_model_index.json").write_text(json.dumps({"is_distilled": True}))
    with pytest.raises(WeightsError, match="names no distilled_sigmas"):
        read_checkpoint(copy)
    (copy / "modular_model_index.json").unlink()
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "epsilon"}))
    with pytest.raises(WeightsError, match="flow prediction with flow sigmas, found prediction_type='epsilon'"):
        build_scheduler(read_checkpoint(copy), CAMERA)
