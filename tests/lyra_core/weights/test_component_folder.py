"""Folders of a library's components: adopted, verified, digested."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from lyra_core.errors import WeightsError
from lyra_core.weights.bundle import PARTS, find_sets
from lyra_core.weights.component_folder import adopt
from lyra_core.weights.convert import convert, convert_set
from lyra_core.weights.manifest import read_manifest
from lyra_core.weights.registry import LICENSES, WEIGHT_SETS, require_accepted, weight_set
from lyra_core.weights.verify import verify


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "published"
    for part in ("transformer", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps({"of": part}))
        save_file({"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, folder / part / "model.safetensors")
    for part, name in (("text_tokenizer", "tokenizer.json"), ("scheduler", "scheduler_config.json")):
        (folder / part).mkdir()
        (folder / part / name).write_text("{}")
    (folder / "LICENSE.md").write_text("the license")
    (folder / "model_index.json").write_text("{}")
    (folder / "transformer" / "own.py").write_text("raise SystemExit")
    (folder / "vae" / "model.bin").write_bytes(b"a pickle")
    (folder / "sound_tokenizer").mkdir()
    (folder / "sound_tokenizer" / "large.bin").write_text("not for us")
    return folder


def test_a_folder_is_adopted_whole_and_verified(published, tmp_path):
    done = tmp_path / "cosmos3-nano"
    manifest = convert_set(published, done, "cosmos3-nano")
    assert set(manifest.tensors) == {"transformer/weight", "vae/weight"}
    assert manifest.parameters == 12
    assert manifest.license == "openmdw-1.1"
    assert not (done / "sound_tokenizer").exists()
    assert {path.suffix for path in done.rglob("*") if path.is_file()} == {".json", ".safetensors", ".md"}
    assert (done / "LICENSE.md").read_text() == "the license", "whoever passes the weights on passes this on"
    assert verify(done).files == len(manifest.files) == 8
    assert read_manifest(done).digest == manifest.digest
    assert find_sets(tmp_path, PARTS["cosmos3-nano"][:1]) == {"dit": done}
    with pytest.raises(WeightsError, match="exists already"):
        convert_set(published, done, "cosmos3-nano")


def test_the_digest_covers_configuration_and_tokenizer(published, tmp_path):
    first = convert_set(published, tmp_path / "a", "cosmos3-nano").digest
    (published / "text_tokenizer" / "tokenizer.json").unlink()
    (published / "text_tokenizer" / "tokenizer.json").write_text("{ }")
    assert convert_set(published, tmp_path / "b", "cosmos3-nano").digest != first


def test_damage_is_found(published, tmp_path):
    done = tmp_path / "cosmos3-nano"
    convert_set(published, done, "cosmos3-nano")
    path = done / "transformer" / "config.json"
    original = path.read_bytes()
    path.unlink()
    path.write_bytes(original.replace(b"transformer", b"transformex"))
    with pytest.raises(WeightsError, match=r"transformer/config.json is damaged or was changed"):
        verify(done)
    path.write_bytes(original)
    weights = done / "vae" / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(WeightsError, match=r"vae/model.safetensors is damaged"):
        verify(done)
    weights.write_bytes(data)
    save_file({"more": np.zeros(1)}, done / "vae" / "more.safetensors")
    with pytest.raises(WeightsError, match=r"files its manifest does not know: vae/more.safetensors"):
        verify(done)


def test_files_outside_the_set_are_refused(published, tmp_path):
    done = tmp_path / "cosmos3-nano"
    convert_set(published, done, "cosmos3-nano")
    manifest = json.loads((done / "manifest.json").read_text())
    manifest["files"]["../published/LICENSE.md"] = {"sha256": "0", "size_bytes": 11}
    (done / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"file ../published/LICENSE.md of the manifest is missing"):
        verify(done)


def test_an_incomplete_folder_names_what_is_missing(published, tmp_path):
    (published / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(WeightsError, match=r"missing: scheduler; fetch it with `lyra weights fetch cosmos3-nano"):
        adopt(published, tmp_path / "done", weight_set("cosmos3-nano"))
    with pytest.raises(WeightsError, match="missing: transformer, vae, text_tokenizer, scheduler"):
        adopt(tmp_path / "nowhere", tmp_path / "done", weight_set("cosmos3-nano"))


def test_an_unfinished_download_names_its_missing_shard(published, tmp_path):
    index = published / "transformer" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": "model.safetensors", "bias": "model-2.safetensors"}}))
    with pytest.raises(WeightsError, match=r"missing: transformer/model-2\.safetensors; fetch it with `lyra weights"):
        convert_set(published, tmp_path / "done", "cosmos3-nano")
    index.write_text("[]")
    with pytest.raises(WeightsError, match=r"index\.json should be an index of safetensors files; fetch it again"):
        convert_set(published, tmp_path / "done", "cosmos3-nano")
    assert not list(tmp_path.glob("done*"))


def test_a_place_that_cannot_be_written(published, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"file/done cannot be written: not a directory at .*; free some space"):
        convert_set(published, tmp_path / "file" / "done", "cosmos3-nano")
    single = tmp_path / "single.safetensors"
    save_file({"weight": np.ones(3, np.float32)}, single)
    with pytest.raises(WeightsError, match=r"file/done cannot be written: not a directory at "):
        convert(single, tmp_path / "file" / "done", "tensors")


def test_the_family_needs_no_acceptance():
    family = [name for name in WEIGHT_SETS if name.startswith("cosmos3-")]
    assert len(family) == 4
    assert {WEIGHT_SETS[name].license for name in family} == {"openmdw-1.1"}
    assert not LICENSES["openmdw-1.1"].restricted
    require_accepted(["openmdw-1.1"], ())
