"""docs/catalog.md: its columns are the schema's, and its lines of code run."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from catalogs.commit import commit
from catalogs.compaction import compact
from catalogs.query import query
from lyra_core import layout
from lyra_core.formats.store import open_store
from lyra_core.gates import GATES
from lyra_core.records import FrameRecord, RejectRecord, SimcheckRecord, WorldRecord

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "catalog.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("record", [WorldRecord, FrameRecord, RejectRecord, SimcheckRecord])
def test_columns_are_those_of_the_schema(record):
    section = PAGE.partition(f"## Columns of `{record.table}`\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    assert listed == [(f.name, f.metadata["type"], f.metadata["meaning"]) for f in fields(record)]


@pytest.fixture
def worlds(tmp_path):
    """A folder with three worlds in two versions, one of them not accepted."""
    store = open_store(tmp_path, fsync=False)
    for digit in "abc":
        commit(store, WorldRecord(world_id=digit * 32, name=digit, accepted=digit != "b", psnr_db=20.0))
    compact(store)
    commit(store, WorldRecord(world_id="d" * 32, name="d", psnr_db=30.0))
    compact(store)
    return str(tmp_path)


def test_the_gates_are_those_of_the_code(worlds):
    section = PAGE.partition("## Quality gates\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+) ([<>]) ([\d.]+)` \| .+ \| `(SELECT .+)` \|$", section, re.MULTILINE)
    assert [row[0] for row in rows] == list(GATES)
    for name, column, sign, limit, sql in rows:
        gate = GATES[name]
        assert (column, float(limit)) == (gate.column, gate.limit.min if sign == "<" else gate.limit.max)
        assert f"WHERE {column} {sign} {limit}" in sql
        assert query(open_store(worlds), sql).num_rows == 0  # unknown values fail nothing


def lines(kind: str) -> list[str]:
    block = re.search(rf"```python {kind}\n(.*?)```", PAGE, re.DOTALL)[1]
    return [line for line in block.splitlines() if line]


def test_the_readers_read(worlds):
    scope = {"worlds": worlds}
    setup, readers = lines("readers")[:2], lines("readers")[2:]
    exec("\n".join(setup), scope)
    assert [line.split(".")[0] for line in readers] == ["duckdb", "pyarrow", "polars", "pandas"]
    for line in readers:
        assert eval(line, scope).shape[0] == 2, line


def test_the_package_reads(worlds):
    scope = {"worlds": worlds, "open_store": open_store}
    first, call = lines("query")
    exec(first, scope)
    found = eval(call, scope)["name"].to_pylist()
    assert (found[0], sorted(found)) == ("d", ["a", "c", "d"])
    first, *calls = lines("snapshot")
    exec(first, scope)
    now, then, files = (eval(call.partition("#")[0], scope) for call in calls)
    assert (now.num_rows, now.column_names, then.num_rows) == (4, ["world_id", "ply_uri"], 3)
    assert all(Path(file).is_file() for file in files)


@pytest.mark.parametrize(
    ("documented", "key"),
    [
        ("worlds/<id[:2]>/<id>/<upload>/...", layout.upload_prefix("ab" * 16, "0123456789ab") + "..."),
        ("catalog/commits/<id[:2]>/<id>.parquet", layout.commit_key("ab" * 16)),
        ("catalog/rejects/<run>/<ordinal>.parquet", layout.reject_key("run", 7)),
        ("catalog/attempts/<id[:2]>/<id>/<n>.json", layout.attempts_prefix("ab" * 16) + "1.json"),
        ("catalog/simchecks/<id[:2]>/<id>.parquet", layout.simcheck_key("ab" * 16)),
        ("catalog/snapshots/vNNNNNN.json", layout.snapshot_key(12)),
        ("catalog/releases/<name>.json", layout.release_key("v1.0")),
    ],
)
def test_the_layout_is_that_of_the_code(documented, key):
    assert f"| `{documented}` |" in PAGE
    values = {
        "<id[:2]>": "ab",
        "<id>": "ab" * 16,
        "<run>": "run",
        "<name>": "v1.0",
        "<ordinal>": "000000007",
        "<n>": "1",
        "<upload>": "0123456789ab",
        "NNNNNN": "000012",
    }
    for name, value in values.items():
        documented = documented.replace(name, value)
    assert documented == key
