"""Pickles are read without being trusted."""

import builtins
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from lyra_core.errors import UnsafePickleError, WeightsError
from lyra_core.weights.allowlist import ALLOWED
from lyra_core.weights.pickles import BOOTSTRAP, ROOT, list_pickled
from lyra_core.weights.stored import read_tensor, verify_crc


def read_all(path):
    return {".".join(t.path): read_tensor(t.stored) for t in list_pickled(path).tensors}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_save_is_read_bit_exact(tmp_path, toy_state, require_same, zipped):
    toy_state["transposed"] = torch.arange(12.0).reshape(3, 4).t()
    toy_state["sliced"] = torch.arange(20, dtype=torch.int32)[5:15:2]
    toy_state["empty"] = torch.empty(0, 3)
    toy_state["flags"] = torch.tensor([True, False])
    toy_state["half"] = torch.tensor([1.5, -2.0], dtype=torch.float16)
    toy_state["parameter"] = torch.nn.Parameter(torch.ones(2))
    toy_state["tied"] = toy_state["blocks.0.q.weight"]
    torch.save(toy_state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_all(tmp_path / "w.pth")
    require_same(found, {name: tensor.detach() for name, tensor in toy_state.items()})


def test_float8_is_read_bit_exact(tmp_path):
    value = torch.arange(8.0).to(torch.float8_e4m3fn)
    torch.save({"w": value}, tmp_path / "w.pt")
    found = read_all(tmp_path / "w.pt")["w"]
    assert found.dtype == value.dtype
    assert torch.equal(found.view(torch.uint8), value.view(torch.uint8))


def test_distributed_checkpoint_is_read_bit_exact(tmp_path, toy_state, save_distributed, require_same):
    directory = save_distributed(toy_state, tmp_path / "dcp")
    found = read_all(directory)
    require_same(found, {f"net.{name}": tensor for name, tensor in toy_state.items()})
    assert list_pickled(directory).others == (("net.blocks.0.attn_op._extra_state",),)


def test_sharded_tensors_of_a_distributed_checkpoint_are_joined(tmp_path, monkeypatch):
    """A tensor cut over two files, as several ranks write it; file names and byte ranges from
    torch itself."""
    whole = torch.arange(24.0).reshape(6, 4)
    for rank, part in enumerate((whole[:4], whole[4:])):
        dcp.save({"w": part.clone()}, checkpoint_id=str(tmp_path / str(rank)), no_dist=True)
    joined = tmp_path / "joined"
    joined.mkdir()
    storage, chunks = {}, []
    for rank, begin in ((0, 0), (1, 4)):
        part = pickle.loads((tmp_path / str(rank) / ".metadata").read_bytes())
        ((_, info),) = part.storage_data.items()
        info.relative_path = f"__{rank}_0.distcp"
        (tmp_path / str(rank) / "__0_0.distcp").rename(joined / info.relative_path)
        offset = torch.Size([begin, 0])
        storage[MetadataIndex("w", offset, rank)] = info
        chunks.append(ChunkStorageMetadata(offsets=offset, sizes=part.state_dict_metadata["w"].size))
    entry = TensorStorageMetadata(properties=TensorProperties(), size=whole.shape, chunks=chunks)
    metadata = Metadata(state_dict_metadata={"w": entry}, storage_data=storage)
    (joined / ".metadata").write_bytes(pickle.dumps(metadata))
    assert torch.equal(read_all(joined)["w"], whole)
    # torch reads the directory alike, so the directory is a real one
    state = {"w": torch.zeros(6, 4)}
    dcp.load(state, checkpoint_id=str(joined), no_dist=True)
    assert torch.equal(state["w"], whole)


@pytest.fixture(params=["os.system", "builtins.eval", "subprocess"])
def attack(request, tmp_path, payload):
    """A payload that writes a marker, the marker, and the name it needs."""
    marker = tmp_path / "marker"
    if request.param == "os.system":
        return payload(os.system, f"touch {marker}"), marker, f"{os.system.__module__}.system"
    if request.param == "builtins.eval":
        return payload(builtins.eval, f"open({str(marker)!r}, 'w')"), marker, "builtins.eval"
    return payload(subprocess.check_call, ["touch", str(marker)]), marker, "subprocess.check_call"


def require_harmless(path, marker, name):
    with pytest.raises(UnsafePickleError, match=name.replace(".", r"\.")):
        list_pickled(path)
    assert not marker.exists()


def test_the_attack_works_against_a_bare_unpickler(attack):
    """Without this, the tests below would prove nothing."""
    value, marker, _ = attack
    pickle.loads(pickle.dumps(value))
    assert marker.exists()


def test_malicious_zip_is_refused(tmp_path, attack, save_zip_with):
    value, marker, name = attack
    require_harmless(save_zip_with({"w": value}, tmp_path / "evil.pth"), marker, name)


def test_malicious_legacy_file_is_refused(tmp_path, attack):
    value, marker, name = attack
    torch.save({"w": torch.ones(2)}, tmp_path / "good.pth", _use_new_zipfile_serialization=False)
    head = io.BytesIO((tmp_path / "good.pth").read_bytes())
    for _ in range(3):
        pickle.load(head)
    (tmp_path / "evil.pth").write_bytes(head.getvalue()[: head.tell()] + pickle.dumps(value, 2))
    require_harmless(tmp_path / "evil.pth", marker, name)


def test_bare_malicious_pickle_is_refused(tmp_path, attack):
    value, marker, name = attack
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(value))
    require_harmless(tmp_path / "evil.pt", marker, name)


def test_malicious_metadata_is_refused(tmp_path, attack, toy_state, save_distributed):
    value, marker, name = attack
    directory = save_distributed(toy_state, tmp_path / "dcp")
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    metadata.planner_data = value
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    require_harmless(directory, marker, name)


def test_malicious_chunk_is_refused(tmp_path, attack, toy_state, save_distributed, save_zip_with):
    """The items inside *.distcp files are pickles too."""
    value, marker, name = attack
    directory = save_distributed(toy_state, tmp_path / "dcp")
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    evil = save_zip_with(value, directory / "__9_9.distcp")
    for info in metadata.storage_data.values():
        info.relative_path, info.offset, info.length = evil.name, 0, evil.stat().st_size
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    require_harmless(directory, marker, name)


@pytest.mark.parametrize("opcode", [b"ctorch.serialization\nload\n(S'x'\ntR.", b"cbuiltins\ngetattr\n."])
def test_other_names_of_torch_and_builtins_are_refused(tmp_path, opcode):
    (tmp_path / "evil.pt").write_bytes(b"\x80\x02" + opcode)
    with pytest.raises(UnsafePickleError):
        list_pickled(tmp_path / "evil.pt")


def test_no_stand_in_is_the_real_thing():
    """OrderedDict is the only real class a pickle can reach; it runs nothing."""
    foreign = {
        key: value
        for key, value in ALLOWED.items()
        if callable(value) and not value.__module__.startswith("lyra_core.weights.allowlist")
    }
    assert foreign == {("collections", "OrderedDict"): OrderedDict}


@pytest.mark.parametrize("call", ["os.system('true')", "open('/tmp/x', 'w')", "socket.socket()", "os.fork()"])
def test_the_process_itself_can_do_no_harm(call):
    """Even code that had escaped the unpickler could not start, write or send anything."""
    code = BOOTSTRAP.rpartition(";")[0].replace("import main", "import _confine") + (
        f"; import os, socket; _confine(); {call}"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert done.returncode != 0
    assert "refused while pickles are read" in done.stderr


def test_the_process_needs_only_the_standard_library():
    code = BOOTSTRAP.rpartition(";")[0] + "; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        env={},
        check=True,
    )
    assert {"torch", "numpy"}.isdisjoint(done.stdout.split())


def truncated_at(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_torch_file_is_refused(tmp_path, toy_state, zipped, share):
    torch.save(toy_state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    truncated_at(tmp_path / "w.pth", share)
    with pytest.raises(WeightsError, match=r"w\.pth"):
        list_pickled(tmp_path / "w.pth")


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_truncated_distributed_checkpoint_is_refused(tmp_path, toy_state, save_distributed, name, share):
    directory = save_distributed(toy_state, tmp_path / "dcp")
    truncated_at(directory / name, share)
    with pytest.raises(WeightsError):
        list_pickled(directory)


def test_missing_shard_of_a_distributed_checkpoint_is_named(tmp_path, toy_state, save_distributed):
    directory = save_distributed(toy_state, tmp_path / "dcp")
    (directory / "__0_0.distcp").unlink()
    with pytest.raises(WeightsError, match=r"__0_0\.distcp"):
        list_pickled(directory)


def test_chunk_outside_the_directory_is_refused(tmp_path, toy_state, save_distributed):
    directory = save_distributed(toy_state, tmp_path / "dcp")
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = "../secret"
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(WeightsError, match="outside its directory"):
        list_pickled(directory)


def test_tampered_bytes_differ_from_their_checksum(tmp_path):
    torch.save({"w": torch.full((64,), 3.0)}, tmp_path / "w.pth")
    data = bytearray((tmp_path / "w.pth").read_bytes())
    at = data.index(torch.full((4,), 3.0).numpy().tobytes())
    data[at + 40] ^= 1
    (tmp_path / "w.pth").write_bytes(bytes(data))
    (tensor,) = list_pickled(tmp_path / "w.pth").tensors
    with pytest.raises(WeightsError, match="checksum"):
        verify_crc(tensor.stored)


def test_a_tensor_reaching_beyond_its_record_is_refused(tmp_path):
    """The index that a hostile pickle asks for: a huge view of a small record."""
    torch.save({"w": torch.ones(4)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as source,
        zipfile.ZipFile(tmp_path / "evil.pth", "w") as target,
    ):
        for info in source.infolist():
            data = source.read(info.filename)
            # the tensor's shape (4,): BININT1 4, TUPLE1
            target.writestr(
                info.filename,
                data.replace(b"K\x04\x85", b"K\xff\x85") if info.filename.endswith("data.pkl") else data,
            )
    with pytest.raises(WeightsError, match="beyond its record"):
        list_pickled(tmp_path / "evil.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02}.", b"\x80\x04\x95"])
def test_what_is_no_weight_file_is_refused(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsError):
        list_pickled(tmp_path / "w.pt")


def test_a_memory_bomb_is_stopped(tmp_path):
    """Doubling tuples 60 times over would take all memory; the index stays small or the process
    ends."""
    body = b"\x80\x02)" + b"".join(b"q%cK\x01" % bytes([i]) + b"0" + b"h%c" % bytes([i]) + b"\x86" for i in range(40))
    (tmp_path / "bomb.pt").write_bytes(body + b".")
    with pytest.raises(WeightsError):
        list_pickled(tmp_path / "bomb.pt")


def test_the_index_itself_is_checked(monkeypatch, tmp_path):
    """The reading process has seen hostile input: what it says is not believed."""
    torch.save({"w": torch.ones(4)}, tmp_path / "w.pth")
    piece = {
        "start": 0,
        "length": 16,
        "crc": None,
        "offset": 0,
        "strides": [1],
        "sizes": [4],
        "at": [0],
    }
    for change in (
        {"file": "/etc/passwd"},
        {"file": "w.pth", "length": 1 << 40},
        {"file": "w.pth", "strides": [99]},
    ):
        entry = {"path": ["w"], "dtype": "F32", "shape": [4], "pieces": [piece | change]}
        answer = json.dumps({"tensors": [entry], "others": []})
        monkeypatch.setattr(
            subprocess,
            "run",
            lambda *a, answer=answer, **k: subprocess.CompletedProcess(a, 0, answer, ""),
        )
        with pytest.raises(WeightsError):
            list_pickled(tmp_path / "w.pth")
