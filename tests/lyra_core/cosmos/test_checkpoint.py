"""What a folder of weights can do, refused in one sentence before anything large is read."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lyra_core.config.cosmos import CAMERA, IMAGE, IMAGE_STUDENT
from lyra_core.cosmos.checkpoint import (
    read_checkpoint,
    require_fitting,
    require_library,
    require_memory,
)
from lyra_core.errors import MissingExtraError, OutOfMemoryError, RecipeError, WeightsError


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
    nano = replace(checkpoint, transformer_parameters=15_170_000_000, vae_parameters=704_700_000)
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


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def fill(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def quantise(path):
    save_file({name: value.astype(np.int8) for name, value in load_file(path).items()}, path)


def shard(path):
    """The published form of large components, with its first file left out."""
    places = dict.fromkeys(load_file(path), "diffusion_pytorch_model-00001-of-00002.safetensors")
    path.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, r"diffusion_pytorch_model.safetensors is truncated: its header needs \d+ bytes"),
        (fill, "is no safetensors file, or it is truncated"),
        (lambda path: path.unlink(), "should hold safetensors files, found none; fetch and convert"),
        (quantise, r"should hold bfloat16 or float32, found I8 \(.*main branch"),
        (shard, r"model-00001-of-00002.safetensors cannot be read: No such file"),
    ],
)
def test_large_files_are_looked_at_before_they_are_read(checkpoint, tmp_path, part, harm, message):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint.folder, copy)
    harm(copy / part / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(copy)


def test_the_numbers_in_the_files_are_counted(checkpoint):
    assert (checkpoint.transformer_parameters, checkpoint.vae_parameters) == (34_912, 21_020)
