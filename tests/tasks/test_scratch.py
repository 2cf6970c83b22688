"""Scratch folders: kept until a world is stored, filled from shorter worlds, never in anybody's way."""

import os
import time

import pytest

from catalogs.commit import commit
from lyra_core.errors import StoreError
from lyra_core.formats.store import open_store
from lyra_core.layout import new_upload, upload_prefix
from lyra_core.records import Artifact, WorldRecord
from lyra_core.spec import WorldSpec
from tasks.scratch import STALE_S, ScratchFolders, kept_chunks

IDS = tuple(f"{i:032x}" for i in range(1, 4))


def spec(num_chunks: int) -> WorldSpec:
    return WorldSpec(
        world_id=IDS[num_chunks - 1],
        chunk_ids=IDS[:num_chunks],
        seed_uri="a.png",
        seed_sha256="0" * 64,
        ordinal=0,
        camera_path="dolly-in",
        num_frames=1 + 80 * num_chunks,
    )


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "out", fsync=False)


def finish(store, folder, world_id):
    """Store the chunks of a world as the worker does, and commit it."""
    prefix = upload_prefix(world_id, new_upload())
    stored = [(kept, store.put_file(prefix + kept.name, kept.path)) for kept in kept_chunks(folder)]
    artifacts = [
        Artifact(role=kept.role, key=put.key, media_type="x", bytes=put.bytes, sha256=put.sha256)
        for kept, put in stored
    ]
    commit(store, WorldRecord(world_id=world_id, folder=prefix).with_artifacts(artifacts, store.root))


def fill(folder, *names):
    (folder / "video").mkdir(exist_ok=True)
    for name in names:
        (folder / "video" / name).write_text(f"content of {name}")


def test_a_folder_survives_until_it_is_removed(tmp_path, store):
    folder = ScratchFolders(tmp_path / "scratch", store).open(spec(2))
    fill(folder, "chunks.json")
    again = ScratchFolders(tmp_path / "scratch", store)
    assert again.open(spec(2)) == folder
    assert (folder / "video" / "chunks.json").exists()
    again.remove(IDS[1])
    assert not folder.exists()
    again.remove(IDS[1])


def test_a_longer_world_starts_from_the_longest_shorter_one_kept(tmp_path, store):
    folders = ScratchFolders(tmp_path / "scratch", store)
    for count in (1, 2):
        folder = folders.open(spec(count))
        fill(folder, "seed.safetensors", "chunks.json", *(f"chunk-{i:04d}.safetensors" for i in range(count)))
        (folder / "video" / ".chunk.tmp").touch()
        finish(store, folder, IDS[count - 1])
    elsewhere = ScratchFolders(tmp_path / "another machine", store).open(spec(3))
    names = sorted(path.name for path in (elsewhere / "video").iterdir())
    assert names == ["chunk-0000.safetensors", "chunk-0001.safetensors", "chunks.json", "seed.safetensors"]
    assert (elsewhere / "video" / "chunk-0001.safetensors").read_text() == "content of chunk-0001.safetensors"


def test_own_unfinished_chunks_go_before_kept_ones(tmp_path, store):
    folders = ScratchFolders(tmp_path / "scratch", store)
    short = folders.open(spec(1))
    fill(short, "chunks.json")
    finish(store, short, IDS[0])
    longer = folders.open(spec(2))
    (longer / "video" / "chunks.json").write_text("own")
    assert (folders.open(spec(2)) / "video" / "chunks.json").read_text() == "own"


def test_abandoned_folders_go(tmp_path, store):
    folders = ScratchFolders(tmp_path / "scratch", store)
    old, new = folders.open(spec(1)), folders.open(spec(2))
    then = time.time() - STALE_S - 60
    os.utime(old, (then, then))
    ScratchFolders(tmp_path / "scratch", store)
    assert not old.exists()
    assert new.exists()


def test_a_disk_that_cannot_be_written_is_named(tmp_path, store):
    (tmp_path / "scratch").write_text("a file")
    with pytest.raises(StoreError, match="LYRA_SCRATCH"):
        ScratchFolders(tmp_path / "scratch", store).open(spec(1))
