"""Conversion keeps every bit, can be stopped at any moment, and is checked byte by byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.errors import StateDictError, UnsafePickleError, WeightsError
from lyra_core.weights import convert as convert_module
from lyra_core.weights.adapter import load_into, open_weights
from lyra_core.weights.convert import Labels, convert, convert_set
from lyra_core.weights.manifest import manifest_digest, read_manifest
from lyra_core.weights.verify import verify


@pytest.fixture
def source(tmp_path, toy_state):
    torch.save({"model": toy_state, "step": 3}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.mark.parametrize("shard_bytes", [10**9, 300, 1])
def test_conversion_is_bit_exact(tmp_path, source, toy_state, meta_toy, require_same, shard_bytes):
    dst = tmp_path / "converted"
    manifest = convert(source, dst, "tensors", shard_bytes=shard_bytes)
    files = sorted(path.name for path in dst.glob("*.safetensors"))
    assert files == sorted(manifest.files)
    if shard_bytes == 10**9:
        assert files == ["model.safetensors"]
    else:
        assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
        assert (dst / "model.safetensors.index.json").is_file()
    # any safetensors reader gives the same, and so does ours
    require_same({k: v for file in files for k, v in load_file(dst / file).items()}, toy_state)
    load_into(meta_toy, open_weights(dst))
    require_same(meta_toy.state_dict(), toy_state)
    assert manifest == read_manifest(dst)
    assert verify(dst).files == len(files)
    assert manifest.parameters == sum(tensor.numel() for tensor in toy_state.values())
    assert manifest.total_bytes == sum(t.numel() * t.element_size() for t in toy_state.values())


def test_distributed_checkpoint_converts_alike(tmp_path, source, toy_state, save_distributed):
    """The digest depends on names and contents, not on format, shards, names of files or time."""
    convert(source, tmp_path / "one", "tensors")
    convert(
        save_distributed(toy_state, tmp_path / "dcp"),
        tmp_path / "two",
        "lyra2-dit",
        shard_bytes=300,
    )
    assert manifest_digest(tmp_path / "one") == manifest_digest(tmp_path / "two")
    assert read_manifest(tmp_path / "two").ignored == ("net.blocks.0.attn_op._extra_state",)


def test_digest_follows_every_change(tmp_path, toy_state):
    digests = set()
    variants = [dict(toy_state) for _ in range(4)]
    variants[1]["norm.weight"] = toy_state["norm.weight"].nextafter(torch.tensor(9.0))
    variants[2]["other"] = variants[2].pop("norm.weight")
    variants[3]["norm.weight"] = toy_state["norm.weight"].view(torch.int32)
    for number, state in enumerate(variants):
        torch.save(state, tmp_path / f"{number}.pth")
        digests.add(convert(tmp_path / f"{number}.pth", tmp_path / str(number), "tensors").digest)
    assert len(digests) == 4


def test_structure_is_checked_before_anything_is_written(tmp_path, source, toy_state):
    shapes = {name: tuple(tensor.shape) for name, tensor in toy_state.items()}
    convert(source, tmp_path / "fits", "tensors", expected=shapes)
    with pytest.raises(StateDictError, match=r"1 missing(?s:.*)gone"):
        convert(source, tmp_path / "misfit", "tensors", expected={**shapes, "gone": (1,)})
    assert not list(tmp_path.glob("misfit*"))


def test_a_known_set_is_checked_against_its_model(tmp_path, source):
    with pytest.raises(StateDictError, match=r"443 keys wanted(?s:.*)missing(?s:.*)unexpected"):
        convert_set(source, tmp_path / "converted", "da3-small")
    with pytest.raises(WeightsError, match="needs no conversion"):
        convert_set(source, tmp_path / "converted", "umt5-tokenizer")


def test_a_known_set_carries_license_and_origin(tmp_path, toy_state):
    """A LoRA fits no module of its own, so any keys do."""
    torch.save({"net.blocks.0.q.lora_A.weight": torch.ones(2, 6)}, tmp_path / "lora.pt")
    record = {"lora-dmd": {"repo_id": "nvidia/Lyra-2.0", "revision": "abc", "license": "x"}}
    (tmp_path / "fetched.json").write_text(json.dumps(record))
    manifest = convert_set(tmp_path / "lora.pt", tmp_path / "converted", "lora-dmd")
    assert (manifest.name, manifest.license) == ("lora-dmd", "nvidia-internal-research")
    assert (manifest.source.repo_id, manifest.source.revision) == ("nvidia/Lyra-2.0", "abc")
    assert list(manifest.tensors) == ["net.blocks.0.q.lora_A.weight"]


def test_an_existing_directory_is_never_touched(tmp_path, source):
    (tmp_path / "dst").mkdir()
    with pytest.raises(WeightsError, match="exists already"):
        convert(source, tmp_path / "dst", "tensors")


def test_a_stopped_conversion_goes_on_where_it_was(tmp_path, source, toy_state, monkeypatch):
    dst, total = tmp_path / "dst", 0
    calls = []
    write = convert_module.write_safetensors

    def stop_at_third(path, tensors, **options):
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(path, tensors, **options)

    monkeypatch.setattr(convert_module, "write_safetensors", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        convert(source, dst, "tensors", shard_bytes=300)
    assert not dst.exists()
    seen = []
    manifest = convert(
        source,
        dst,
        "tensors",
        shard_bytes=300,
        progress=lambda done, all_: seen.append((done, all_)),
    )
    total = manifest.total_bytes
    assert len(calls) == 1 + len(manifest.files)  # the first two shards were kept, the third begun anew
    assert seen[-1] == (total, total)
    assert verify(dst).manifest.digest == convert(source, tmp_path / "fresh", "tensors").digest
    assert not list(tmp_path.glob("*.partial"))


def test_a_changed_source_starts_afresh(tmp_path, source, toy_state, monkeypatch):
    write = convert_module.write_safetensors
    monkeypatch.setattr(convert_module, "write_safetensors", lambda *a, **k: (write(*a, **k), 1 / 0)[0])
    with pytest.raises(ZeroDivisionError):
        convert(source, tmp_path / "dst", "tensors", shard_bytes=300)
    monkeypatch.undo()
    toy_state["norm.weight"] = torch.full((6,), 5.0)
    torch.save(toy_state, source)
    convert(source, tmp_path / "dst", "tensors", shard_bytes=300)
    assert torch.equal(open_weights(tmp_path / "dst")["norm.weight"], toy_state["norm.weight"])


def test_damaged_bytes_stop_the_conversion(tmp_path):
    torch.save({"w": torch.full((64,), 3.0)}, tmp_path / "w.pth")
    data = bytearray((tmp_path / "w.pth").read_bytes())
    data[data.index(torch.full((4,), 3.0).numpy().tobytes())] ^= 1
    (tmp_path / "w.pth").write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="differ from their checksum"):
        convert(tmp_path / "w.pth", tmp_path / "dst", "tensors")
    assert not (tmp_path / "dst").exists()


def test_a_malicious_file_is_not_converted(tmp_path, payload, save_zip_with):
    marker = tmp_path / "marker"
    save_zip_with({"w": payload(os.system, f"touch {marker}")}, tmp_path / "evil.pth")
    with pytest.raises(UnsafePickleError):
        convert(tmp_path / "evil.pth", tmp_path / "dst", "tensors")
    assert not marker.exists()
    assert not list(tmp_path.glob("dst*"))


def test_memory_stays_near_one_tensor(tmp_path):
    """128 MB in 32 tensors: the peak grows by a few tensors, not by a shard; and torch is not
    needed."""
    torch.save({f"w{i}": torch.full((1_000_000,), float(i)) for i in range(32)}, tmp_path / "w.pth")
    code = (
        "import resource, sys; from pathlib import Path; from lyra_core.weights.convert import "
        "convert\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = peak()\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), 'tensors', shard_bytes=50_000_000)\n"
        "print(peak() - before, 'torch' in sys.modules)"
    )
    root = str(Path(convert_module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w.pth"), str(tmp_path / "dst")],
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown_mib, needed_torch = done.stdout.split()
    assert len(list((tmp_path / "dst").glob("*.safetensors"))) == 3
    assert int(grown_mib) < 30
    assert needed_torch == "False"


@pytest.fixture
def converted(tmp_path, source):
    convert(source, tmp_path / "set", "tensors", labels=Labels(name="toy"), shard_bytes=300)
    return tmp_path / "set"


@pytest.mark.parametrize("where", [8, 200, -1])
def test_a_flipped_bit_is_found_and_its_file_named(converted, where):
    victim = sorted(converted.glob("*.safetensors"))[1]
    data = bytearray(victim.read_bytes())
    data[where] ^= 4
    victim.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=victim.name):
        verify(converted)


def test_truncated_missing_and_foreign_files_are_named(converted):
    first, second, *_ = sorted(converted.glob("*.safetensors"))
    data = first.read_bytes()
    first.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=rf"{first.name} is damaged: it should have {len(data)} bytes"):
        verify(converted)
    first.write_bytes(data)
    verify(converted)
    second.rename(converted / "other.safetensors")
    with pytest.raises(WeightsError, match=rf"{second.name} of the manifest is missing"):
        verify(converted)
    (converted / "other.safetensors").rename(second)
    (converted / "other.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match=r"does not know: other\.safetensors"):
        verify(converted)


def test_swapped_tensors_are_found(converted):
    """Structure is compared before checksums: a manifest of another set cannot pass."""
    manifest = json.loads((converted / "manifest.json").read_text())
    manifest["tensors"]["norm.weight"]["shape"] = [3, 2]
    (converted / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="its digest is"):
        verify(converted)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "lyra-weights", "version": 9}'])
def test_malformed_manifests_are_refused(converted, content):
    (converted / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        manifest_digest(converted)


def test_a_directory_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="lyra weights convert"):
        verify(tmp_path)


def test_digests_are_read_without_torch_and_numpy(converted):
    root = Path(convert_module.__file__).parents[2]
    code = (
        "import sys; from lyra_core.weights.manifest import manifest_digest; "
        "manifest_digest(sys.argv[1]);"
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(converted)],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    assert done.stdout.strip() == "set()"
