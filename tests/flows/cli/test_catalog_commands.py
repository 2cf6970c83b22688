"""verify, gc, card and lineage as a user types them, on a small catalog."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from catalogs.compaction import compact
from flows.cli import _exit_code
from lyra_core.formats.store import Store, open_store
from lyra_core.identity import chunk_ids
from lyra_core.layout import new_upload, upload_prefix
from lyra_core.records import Artifact, WorldRecord


def put_world(store: Store, links: tuple[str, ...], *, commit_it: bool = True) -> WorldRecord:
    from catalogs.commit import commit

    folder = upload_prefix(links[-1], new_upload())
    put = store.put_bytes(f"{folder}gaussians.ply", links[-1].encode())
    artifact = Artifact(role="ply", key=put.key, media_type="model/ply", bytes=put.bytes, sha256=put.sha256)
    record = WorldRecord(world_id=links[-1], chunk_ids=links, folder=folder, name="a", seed_license="CC0-1.0")
    record = record.with_artifacts([artifact], store.root)
    if commit_it:
        commit(store, record)
    return record


@pytest.fixture
def catalog(tmp_path) -> tuple[Store, list[WorldRecord]]:
    """A world, the same extended by a chunk, and a world's files without a commit."""
    store = open_store(tmp_path / "worlds", fsync=False)
    short = chunk_ids("0" * 32, [b"one"], ["x"])
    long = chunk_ids("0" * 32, [b"one", b"two"], ["x", "x"])
    records = [put_world(store, links) for links in (short, long)]
    put_world(store, chunk_ids("1" * 32, [b"dead"], ["x"]), commit_it=False)
    compact(store)
    return store, records


def run(capsys, *arguments: str) -> tuple[int, object]:
    code = _exit_code([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_verify_tells_files_that_are_not_those_of_their_row(catalog, capsys):
    store, records = catalog
    assert run(capsys, "verify", store.root) == (0, {"files": 2, "mismatches": []})
    Path(store.uri(records[0].artifacts[0].key)).write_text("other bytes")
    code, report = run(capsys, "verify", store.root)
    assert code == 1
    assert [mismatch["world_id"] for mismatch in report["mismatches"]] == [records[0].world_id]


def test_gc_removes_what_nothing_refers_to_once_it_is_old(catalog, capsys):
    store, _ = catalog
    assert run(capsys, "gc", store.root)[1]["found"] == 0
    then = time.time() - 3 * 86_400
    for path in Path(store.root).rglob("*"):
        os.utime(path, (then, then))
    code, report = run(capsys, "gc", store.root, "--dry-run")
    assert (code, report["found"], report["removed"]) == (0, 1, 0)
    assert run(capsys, "gc", store.root)[1]["removed"] == 1
    assert run(capsys, "verify", store.root)[0] == 0


def test_lineage_names_the_longer_and_the_shorter_world(catalog, capsys):
    store, (short, long) = catalog
    assert run(capsys, "lineage", store.root, short.world_id[:8])[1]["extended_by"] == [long.world_id]
    assert run(capsys, "lineage", store.root, long.world_id)[1]["extends"] == [short.world_id]


def test_card_describes_the_latest_snapshot(catalog, capsys):
    store, _ = catalog
    code, report = run(capsys, "card", store.root, "--name", "Two places")
    assert code == 0
    assert [Path(file).name for file in report["files"]] == ["README.md", "croissant.json"]
    assert "# Two places" in (Path(store.root) / "README.md").read_text()


@pytest.mark.parametrize("command", ["verify", "gc", "card"])
def test_a_place_without_a_catalog_is_an_error(command, tmp_path, capsys):
    code, report = run(capsys, command, str(tmp_path))
    assert code == 1
    assert "no catalog" in report["error"]["message"]


def test_gallery_shows_what_it_can_and_tells_of_the_rest(catalog, capsys):
    """These worlds' Gaussians are not real ones: the index is written, and the command says so."""
    store, records = catalog
    code, found = run(capsys, "gallery", store.root)
    assert (code, found["worlds"]) == (1, 0)
    assert {problem["world_id"] for problem in found["problems"]} == {record.world_id for record in records}
    assert Path(found["index"]) == Path(store.root) / "gallery" / "index.html"
    assert Path(found["index"]).is_file()


def test_report_is_one_file(catalog, capsys, tmp_path):
    store, _ = catalog
    assert run(capsys, "report", store.root, "--to", str(tmp_path / "r.html"))[0] == 0
    assert "<title>Report of worlds</title>" in (tmp_path / "r.html").read_text()
    code, found = run(capsys, "report", store.root, "--to", str(tmp_path))
    assert code == 1
    assert "wanted a file to write, found Is a directory" in found["error"]["message"]


def test_publish_refuses_and_freezes(catalog, capsys):
    store, _ = catalog
    code, found = run(capsys, "publish", store.root, "v1", "--dry-run")
    assert (code, found["worlds"], found["refused"], found["written"]) == (0, 2, {}, False)
    code, found = run(capsys, "publish", store.root, "v1")
    assert (code, found["release"], found["snapshot"], found["written"]) == (0, "v1", 1, True)
    code, found = run(capsys, "publish", store.root, "v1")
    assert code == 1
    assert "is never changed" in found["error"]["message"]
