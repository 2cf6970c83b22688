"""Manifests in the formats, encodings and states in which spreadsheets, data frames and editors leave them."""

from __future__ import annotations

import array
import bz2
import decimal
import gzip
import json
import lzma
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lyra_core.errors import ManifestError
from tasks.manifest import BadRow, ManifestRow, read_seeds

NOTICES: list[str] = []


def read(tmp_path, name: str, content: str | bytes) -> list[ManifestRow | BadRow]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    NOTICES.clear()
    return list(read_seeds([str(path)], NOTICES.append))


def said(rows) -> list[tuple[str, str | None]]:
    """Name and prompt of good rows, the place of bad ones."""
    return [
        (row.seed_uri.rsplit("/", 1)[1], row.prompt)
        if isinstance(row, ManifestRow)
        else ("bad", row.reason.partition(": ")[0].rpartition(", ")[2])
        for row in rows
    ]


TABLE = "seed,prompt,license\r\na.png,a room,CC0-1.0\r\nb.png,Zoë,\r\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", TABLE.encode()),
        ("m.csv", TABLE.encode("utf-8-sig")),
        ("m.csv", TABLE.encode("utf-16")),
        ("m.csv", TABLE.encode("utf-16-le")),
        ("m.csv", TABLE.encode("utf-16-be")),
        ("m.csv", TABLE.encode("utf-32")),
        ("m.csv", TABLE.encode("cp1252")),
        ("m.csv", TABLE.replace("\r\n", "\r").encode()),
        ("m.csv", TABLE.replace("\r\n", "\n").encode()),
        ("m.csv", TABLE.replace(",", ";").encode()),
        ("m.csv", TABLE.replace(",", "\t").encode()),
        ("m.tsv", TABLE.replace(",", "\t").encode()),
        ("m.csv", b"sep=,\r\n" + TABLE.encode()),
        ("m.csv", b"sep=;\n" + TABLE.replace(",", ";").encode()),
        ("m.CSV", b"\r\n\r\n" + TABLE.encode()),
        ("m.csv.gz", gzip.compress(TABLE.encode())),
        ("m.csv.bz2", bz2.compress(TABLE.encode())),
        ("m.csv.xz", lzma.compress(TABLE.encode())),
        ("m.json", json.dumps([{"seed": "a.png", "prompt": "a room"}, {"seed": "b.png", "prompt": "Zoë"}]).encode()),
        (
            "m.jsonl.gz",
            gzip.compress('{"seed": "a.png", "prompt": "a room"}\n{"seed": "b.png", "prompt": "Zoë"}'.encode()),
        ),
    ],
)  # fmt: skip
def test_delimiters_encodings_and_compressions(tmp_path, name, content):
    assert said(read(tmp_path, name, content)) == [("a.png", "a room"), ("b.png", "Zoë")]


def test_a_guessed_encoding_is_told_once(tmp_path):
    read(tmp_path, "m.csv", "seed,prompt\na.png,x\nb.png,André\nc.png,Zoë\n".encode("cp1252"))
    assert [f"manifest {tmp_path}/m.csv: line 3 is not UTF-8; lines like it are read as Windows-1252"] == NOTICES


def test_lists_of_paths(tmp_path):
    assert said(read(tmp_path, "m.txt", "a.png\n\n  b c.png \r\n")) == [("a.png", None), ("b c.png", None)]
    assert said(read(tmp_path, "m.json", '["a.png", "b.png", 3]')) == [
        ("a.png", None),
        ("b.png", None),
        ("bad", "element 3"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("m.xlsx", b"PK\3\4" + bytes(100), "save the sheet as CSV UTF-8"),
        ("m.zip", b"PK\3\4" + bytes(100), "unpack it"),
        ("m.jsonl", b'[{"seed": "a.png"},\n {"seed": "b.png"}]\n', "name it .json"),
        ("m.json", b'{"seed": "a.png"}\n{"seed": "b.png"}\n', "one object a line is a .jsonl file"),
        ("m.json", b"[" * 100_000, "found no JSON"),
        ("m.json", b'{"seed": "a.png"}', "wanted a JSON array of objects, found an object"),
        ("m.csv", b"", "found no columns"),
        ("m.csv", b"a.png\nb.png\n", "a bare list of paths is a .txt file"),
        ("m.csv.gz", gzip.compress(b"seed\n" + b"a.png\n" * 1000)[:-20], "cut short or damaged"),
        ("m.csv.gz", b"seed\na.png\n", "cut short or damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_what_to_do(tmp_path, name, content, hint):
    with pytest.raises(ManifestError, match=hint):
        read(tmp_path, name, content)


def test_an_unquoted_comma_is_a_reject_that_names_the_quotes(tmp_path):
    rows = read(
        tmp_path,
        "m.csv",
        "seed,prompt,license\na.png,a quiet room, morning light,CC0-1.0\nb.png,fine,CC0-1.0\nc.png,x,y,,\n",
    )
    assert said(rows) == [("bad", "line 2"), ("b.png", "fine"), ("c.png", "x")]
    assert "it has 4 cells where the header has 3; put text that holds ',' into double quotes" in rows[0].reason
    assert rows[0].seed_uri == f"{tmp_path}/a.png"


def test_a_stray_quote_swallows_no_row(tmp_path):
    rows = read(tmp_path, "m.csv", 'seed,prompt\na.png,ok\nb.png,"never closed\nc.png,x\nd.png,y\n')
    assert said(rows) == [("a.png", "ok"), ("bad", "line 3"), ("c.png", "x"), ("d.png", "y")]
    assert "a quote opens here and does not close" in rows[1].reason


def test_a_quote_that_closes_rows_later_swallows_no_row(tmp_path):
    rows = read(tmp_path, "m.csv", 'seed,prompt\nb.png,"opens\nc.png,x\nd.png,closes"\ne.png,"fine"\n')
    assert said(rows) == [("bad", "line 2"), ("c.png", "x"), ("d.png", 'closes"'), ("e.png", "fine")]
    assert "a quote opens here and swallows the rows below" in rows[0].reason


def test_a_quote_within_a_cell(tmp_path):
    lines = ['a.png,"a 24" monitor', 'b.png,a 24" monitor', 'c.png,"a 24"" monitor, on"', 'd.png, "x, y"']
    rows = read(tmp_path, "m.csv", "\n".join(["seed,prompt", *lines]))
    good = [("b.png", 'a 24" monitor'), ("c.png", 'a 24" monitor, on'), ("d.png", "x, y")]
    assert said(rows) == [("bad", "line 2"), *good]


def test_a_line_break_within_quotes_is_text(tmp_path):
    rows = read(tmp_path, "m.csv", 'seed,prompt\na.png,"two\r\nlines, and ""quotes"""\nb.png,y\n')
    assert said(rows) == [("a.png", 'two\nlines, and "quotes"'), ("b.png", "y")]
    assert [row.place.rpartition(", ")[2] for row in rows] == ["line 2", "line 4"]


def test_a_stray_quote_in_a_long_file_costs_little(tmp_path):
    text = "seed,prompt\n" + 'a.png,"open\n' + "".join(f"c{i}.png,row {i} of many\n" for i in range(20_000))
    start = time.perf_counter()
    rows = read(tmp_path, "m.csv", text)
    assert sum(isinstance(row, BadRow) for row in rows) == 1
    assert len(rows) == 20_001
    assert time.perf_counter() - start < 5


def test_long_lines_and_cells_are_bounded(tmp_path):
    lines = [f"a.png,{'x' * 5_000_000}", f'b.png,"{"y" * 200_000}"', f"c.png,{'z' * 200_000}", "d.png,ok"]
    rows = read(tmp_path, "m.csv", "\n".join(["seed,prompt", *lines]))
    assert said(rows) == [("bad", "line 2"), ("bad", "line 3"), ("bad", "line 4"), ("d.png", "ok")]
    assert "longer than 1,048,576 characters" in rows[0].reason
    assert "'prompt' holds 200,000 characters" in rows[2].reason
    rows = read(tmp_path, "m.jsonl", '{"seed": "a.png"}\n' + "[" * 3_000_000 + '\n{"seed": "b.png"}')
    assert said(rows) == [("a.png", None), ("bad", "line 2"), ("b.png", None)]


def test_nul_and_fewer_cells(tmp_path):
    rows = read(tmp_path, "m.csv", b"seed,prompt,license\na.png,x\0y,\nb.png\nc\0.png,z\n")
    assert said(rows) == [("bad", "line 2"), ("b.png", None), ("bad", "line 4")]


SEEDS = ["a.png", "b.png"]


@pytest.mark.parametrize(
    "seeds",
    [
        pa.array(SEEDS),
        pa.array(SEEDS, pa.large_string()),
        pa.array(SEEDS, pa.string_view()),
        pa.array(SEEDS).dictionary_encode(),
        pa.array([s.encode() for s in SEEDS]),
    ],
    ids=lambda array: str(array.type),
)
def test_text_types_of_parquet(tmp_path, seeds):
    hfov = pa.array([decimal.Decimal("60.5"), None])
    pq.write_table(pa.table({"Seed": seeds, "hfov_deg": hfov, "id": [1, 2]}), tmp_path / "m.parquet")
    rows = list(read_seeds([str(tmp_path / "m.parquet")]))
    assert [(row.seed_uri, row.hfov_deg) for row in rows] == [(f"{tmp_path}/a.png", 60.5), (f"{tmp_path}/b.png", None)]


def test_pictures_inside_a_parquet_are_refused_in_a_short_sentence(tmp_path):
    pictures = pa.array([{"bytes": b"\xff" * 50_000, "path": "a.jpg"}])
    pq.write_table(pa.table({"seed": pictures}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"holds pictures .* write the pictures to files") as caught:
        list(read_seeds([str(tmp_path / "m.parquet")]))
    assert len(str(caught.value)) < 400


def test_values_of_other_types_in_a_parquet_cost_their_row(tmp_path):
    table = pa.table({"seed": SEEDS, "prompt": pa.array([["x"], None]), "variants": [float("nan"), 2.0]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert said(read_seeds([str(tmp_path / "m.parquet")])) == [("bad", "row 1"), ("b.png", None)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_text_that_is_no_utf8_in_a_parquet_costs_its_row(tmp_path, kind):
    good, bad = pa.py_buffer(b"a.pngb.png"), pa.py_buffer(b"a.png\xff.png")
    width = "i" if kind == pa.string() else "q"
    offsets = pa.py_buffer(array.array(width, [0, 5, 10]).tobytes())
    columns = [pa.Array.from_buffers(kind, 2, [None, offsets, data]) for data in (good, bad)]
    pq.write_table(pa.table(columns, names=["seed", "license"]), tmp_path / "m.parquet")
    rows = list(read_seeds([str(tmp_path / "m.parquet")]))
    assert said(rows) == [("a.png", None), ("bad", "row 2")]
    assert "'license' wants text, found 5 bytes that are not UTF-8" in rows[1].reason


def test_a_folder_of_parts(tmp_path):
    folder = tmp_path / "dir.parquet"
    (folder / "day=1").mkdir(parents=True)
    (folder / "_temporary").mkdir()
    parts = {"part-0": "a.png", "day=1/part-1.snappy": "b.png", "_temporary/x": "no.png"}
    for name, seed in parts.items():
        pq.write_table(pa.table({"seed": [seed]}), folder / f"{name}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").touch()
    rows = list(read_seeds([str(folder)]))
    assert sorted(row.seed_uri for row in rows) == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    (tmp_path / "empty.csv").mkdir()
    with pytest.raises(ManifestError, match="holds no part"):
        list(read_seeds([str(tmp_path / "empty.csv")]))
