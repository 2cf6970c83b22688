"""Data is never markup: brackets, escape sequences and odd paths through every command that shows them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from catalogs.commit import commit
from catalogs.rejects import reject
from flows.cli import _exit_code
from flows.cli.batch_output import print_summary
from flows.cli.output import plain
from flows.report import BatchSummary
from lyra_core.formats.store import open_store
from lyra_core.identity import chunk_ids
from lyra_core.layout import new_upload, upload_prefix
from lyra_core.records import Artifact, RejectRecord, WorldRecord

HOSTILE = "[INST] a [bold]room[/nope] [/INST] :smile: \x1b]0;owned\x07\x1b[31m | `x`\nline"
SHOWN = "[INST] a [bold]room[/nope] [/INST] :smile: \\x1b]0;owned\\x07\\x1b[31m | `x`\\nline"
FOLDER = "w [v2]; it's :smile: [INST] \x1b[31m"
ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """One world and one reject whose every text is hostile, in a folder with a hostile name."""
    store = open_store(tmp_path_factory.mktemp("hostile") / FOLDER, fsync=False)
    world_id = chunk_ids("a" * 32, [b"cameras"], [HOSTILE])[-1]
    record = WorldRecord(
        world_id=world_id, run_id="r", name=HOSTILE, recipe="parallax", seed_uri=HOSTILE, prompt=HOSTILE,
        accepted=False, reject_reasons=(HOSTILE,), output_license=HOSTILE, num_splats=3, trajectory_name=HOSTILE,
        model_name=HOSTILE,
    )  # fmt: skip
    put = store.put_bytes(upload_prefix(world_id, new_upload()) + "gaussians.ply", b"ply")
    artifact = Artifact(role="ply", key=put.key, media_type="model/ply", bytes=3, sha256=put.sha256, etag="")
    commit(store, record.with_artifacts([artifact], store.root))
    reject(store, RejectRecord(run_id="r", ordinal=3, stage="seed", reason=HOSTILE, seed_uri=HOSTILE))
    return store


@pytest.fixture
def here(capsys, tmp_path, monkeypatch):
    """Runs `lyra` in this process, in seconds less; streams as real ones are in the tests that take `lyra`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LYRA_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "RAY_"))]:
        monkeypatch.delenv(name)

    def run(*arguments):
        code = _exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


def everything(finished) -> str:
    return finished.out + finished.err


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["query", "SELECT name, prompt, seed_uri, reject_reasons, '[/x]' AS \"[/INST]\" FROM worlds"],
        ["query", "SELECT reason FROM rejects"],
        ["query", 'SELECT "[/INST]\x1b[31m" FROM worlds'],
        ["peek"],
        ["peek", "[/INST]\x1b[31m"],
        ["doctor"],
    ],
)
def test_every_command_shows_it_as_text(here, catalog, command):
    name, *rest = command
    if name == "doctor":
        finished = here(name, "--out", catalog.root)
    else:
        rest = rest or ([next(catalog.list("worlds/")).key.split("/")[2]] if name == "peek" else [])
        finished = here(name, catalog.root, *rest)
    assert "Traceback" not in finished.err
    assert not ACTS.search(everything(finished)), ascii(everything(finished))
    assert "INST]" in everything(finished)
    if command == ["peek"]:
        assert SHOWN in finished.out
        assert finished.code == 0


def test_planning_shows_it_as_text(here, make_seeds, tmp_path):
    """Seeds, recipe, output, camera path and option of hostile names; a row that is rejected for its."""
    folder = make_seeds("a.png")
    (folder / "[bold]x[ INST].png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "m.jsonl").write_text(json.dumps({"seed": f"{folder}/gone {HOSTILE}.png"}) + "\n")
    runs = [
        (["run", folder, tmp_path / "m.jsonl", "--out", FOLDER, "--dry-run"], 0),
        (["run", folder / HOSTILE], 2),
        (["run", folder, "--recipe", HOSTILE], 2),
        (["run", folder, "--camera-path", HOSTILE], 1),
        (["run", folder, "--set", HOSTILE], 2),
        (["run", folder, f"--{HOSTILE}"], 2),
        (["recipes", HOSTILE], 2),
        (["status", tmp_path / FOLDER / "none"], 1),
    ]
    for arguments, code in runs:
        finished = here(*arguments)
        assert finished.code == code, everything(finished)
        assert "Traceback" not in finished.err
        assert not ACTS.search(everything(finished)), ascii(everything(finished))
        assert "INST]" in everything(finished)


@pytest.mark.parametrize("folder", [FOLDER, "-x y", "plain"])
def test_the_suggested_commands_run(catalog, capsys, folder, tmp_path, monkeypatch):
    """Pasted into a shell as printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).symlink_to(catalog.root)
    monkeypatch.setattr(sys, "argv", ["lyra of [mine]"])
    monkeypatch.setattr("shutil.which", lambda _: None)
    summary = BatchSummary(
        run_id="r", out=folder, recipe="parallax", seeds=1, created=1, existing=0, duplicates=0, rejected=0,
        not_accepted=0, snapshot_version=1, seconds=1, seconds_per_stage={},
        example_world_id=next(catalog.list("worlds/")).key.split("/")[2],
    )  # fmt: skip
    print_summary(summary, "http://127.0.0.1:1")
    out = capsys.readouterr().out
    assert not ACTS.search(out)
    (tmp_path / "lyra of [mine]").write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    (tmp_path / "lyra of [mine]").chmod(0o755)
    for line in out.split("next\n")[1].splitlines():
        found = subprocess.run(
            ["bash", "-c", line], capture_output=True, check=True, env={**os.environ, "PATH": f".:{os.environ['PATH']}"}
        )
        arguments = found.stdout.decode("utf-8", "surrogateescape").split("\0")
        assert os.path.samefile(arguments[1], catalog.root)  # noqa: PTH121


def test_narrow_and_ascii_terminals(lyra, catalog):
    world_id = next(catalog.list("worlds/")).key.split("/")[2]
    plainest = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "10"}
    for arguments in (["status"], ["query", "SELECT *, '\u2502 caf\u00e9' FROM worlds"], ["peek", world_id]):
        finished = lyra(arguments[0], catalog.root, *arguments[1:], **plainest)
        assert finished.code == 0, finished.err
        assert finished.out.isascii()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(lyra, catalog, unbuffered):
    sql = "SELECT range AS n, repeat('x', 1000) AS x FROM range(2000)"
    for extra in (["--json"], []):
        process = lyra.start("query", catalog.root, sql, *extra, PYTHONUNBUFFERED=unbuffered)
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) in (0, 141)


@pytest.mark.parametrize(("redirection", "code", "words"), [(">&-", 0, ""), (">/dev/full", 1, "a disk is full")])
def test_an_output_that_cannot_be_written(lyra, catalog, redirection, code, words):
    command = f'"$0" -c "from lyra_core._launch import main; main()" status "$1" --json {redirection}'
    finished = subprocess.run(
        ["bash", "-c", command, sys.executable, catalog.root], env=lyra.environment, capture_output=True, text=True
    )
    assert (finished.returncode, "Traceback" in finished.stderr) == (code, False), finished.stderr
    assert words in finished.stderr


def test_json_is_json(lyra, catalog):
    sql = (
        "SELECT sum(num_splats) AS s, count(*) AS n, 1.5::DECIMAL(9,2) AS d, 'nan'::DOUBLE AS x, '-inf'::FLOAT AS y, "
        "TIMESTAMP '2026-11-22 08:00:00' AS t, INTERVAL 2 SECOND AS i, [1.0, 'nan'::DOUBLE] AS l, 'a'::BLOB AS b, "
        "{'k': 2::HUGEINT} AS m, 1 AS n FROM worlds"
    )

    def refuse(constant: str):
        raise AssertionError(constant)

    (row,) = json.loads(lyra("query", catalog.root, sql, "--json").out, parse_constant=refuse)
    assert row == {
        "s": 3, "n": 1, "d": 1.5, "x": None, "y": None, "t": "2026-11-22T08:00:00", "i": row["i"], "l": [1.0, None],
        "b": "61", "m": {"k": 2}, "n_2": 1,
    }  # fmt: skip
    assert isinstance(plain(10**30), int)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY worlds TO '{out}'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH '{out}' AS a",
        "EXPORT DATABASE '{out}'",
        "INSTALL httpfs",
    ],
)
def test_a_query_touches_no_file(here, catalog, tmp_path, sql):
    finished = here("query", catalog.root, sql.format(out=tmp_path / "x"))
    assert finished.code == 1
    assert "reads worlds, frames, rejects, simchecks and nothing else" in finished.err
    assert not (tmp_path / "x").exists()
    assert "root:" not in everything(finished)


def test_a_mistyped_place_is_no_catalog(here, catalog, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in (["status"], ["query", "SELECT 1"], ["peek", "ab12"]):
        for place in ("nowhere", "empty"):
            finished = here(command[0], tmp_path / place, *command[1:])
            assert finished.code == 1
            assert "no catalog in" in finished.err
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "worlds").symlink_to(catalog.root)
    assert "did you mean" in here("status", tmp_path / "project").err
    only_rejects = open_store(tmp_path / "rejects", fsync=False)
    reject(only_rejects, RejectRecord(run_id="r", ordinal=0, stage="seed", reason="no image", seed_uri="x.jpg"))
    assert json.loads(here("status", tmp_path / "rejects", "--json").out)["worlds"] == 0
