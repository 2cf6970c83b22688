"""Durable chunks: what is written is found, what is torn is not, and half a write is none."""

from dataclasses import replace

import pytest
import torch

from lyra_core.errors import LyraWarning, StoreError
from lyra_core.video.chunk_store import ChunkRecord, ChunkStore, chain_inputs


def record(i):
    generator = torch.Generator().manual_seed(i)
    return ChunkRecord(
        chunk_id=f"{i:032x}",
        inputs_sha256=f"{i:064x}",
        caption=f"chunk {i}",
        sampled=torch.randn(2, 3, 4, 5, generator=generator),
        history=torch.randn(2, 3, 4, 5, generator=generator),
        depth_m=torch.rand(2, 6, 7, generator=generator),
        depth_frames=torch.tensor([8, 16]),
        world_to_cam=torch.eye(4, dtype=torch.float64).repeat(8, 1, 1),
        intrinsics=torch.eye(3, dtype=torch.float64).repeat(8, 1, 1),
    )


@pytest.fixture
def store(tmp_path):
    store = ChunkStore(tmp_path / "world")
    for i in range(3):
        store.write(i, record(i))
    return store


def read(store, i):
    return store.read(i, record(i).chunk_id, record(i).inputs_sha256)


def test_round_trip(store):
    for i in range(3):
        found, wanted = read(ChunkStore(store.folder), i), record(i)
        assert found.caption == wanted.caption
        for name in ("sampled", "history", "depth_m", "depth_frames", "world_to_cam"):
            assert torch.equal(getattr(found, name), getattr(wanted, name))


def test_asked_differently_is_not_found(store):
    assert store.read(1, "other", record(1).inputs_sha256) is None
    assert store.read(1, record(1).chunk_id, "other") is None
    assert store.read(3, record(1).chunk_id, record(1).inputs_sha256) is None
    assert store.caption(1, record(1).chunk_id) == "chunk 1"
    assert store.caption(1, "other") is None


def test_writing_a_chunk_forgets_later_ones(store):
    store.write(1, replace(record(1), chunk_id="new"))
    assert read(store, 0) is not None
    assert read(store, 2) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_chunk_is_as_good_as_none(store, damage):
    path = store.folder / "chunk-0001.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-3])
    elif damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    with pytest.warns(LyraWarning, match="generated again"):
        assert read(store, 1) is None
    assert read(store, 0) is not None


def test_failed_write_leaves_the_old_list(store, monkeypatch):
    before = (store.folder / "chunks.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lyra_core.video.chunk_store.os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write(1, replace(record(1), chunk_id="new"))
    monkeypatch.undo()
    assert (store.folder / "chunks.json").read_bytes() == before
    assert read(store, 1) is not None


def test_gap_is_an_error(store):
    with pytest.raises(StoreError, match="chunk 5 needs 5 chunks before it"):
        store.write(5, record(5))


@pytest.mark.parametrize("content", [b"{", b'{"format": "lyra-chunks/9", "chunks": []}'])
def test_unreadable_list_is_an_error(store, content):
    (store.folder / "chunks.json").write_bytes(content)
    with pytest.raises(StoreError, match="remove the folder"):
        read(store, 0)


def test_digest_tells_shapes_and_types_apart():
    x = torch.zeros(4)
    digests = {
        chain_inputs("", x),
        chain_inputs("", x.view(2, 2)),
        chain_inputs("", x.to(torch.int32)),
        chain_inputs("", "ab", "c"),
        chain_inputs("", "a", "bc"),
        chain_inputs("1", x),
    }
    assert len(digests) == 6
