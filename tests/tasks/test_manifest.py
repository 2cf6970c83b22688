"""Seeds as users name them, and manifests as users get them wrong."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lyra_core.errors import ManifestError
from tasks.manifest import BadRow, ManifestRow, read_seeds


def uris(*sources: str) -> list[str]:
    return [row.seed_uri for row in read_seeds(sources)]


def test_a_folder_gives_its_images_by_name_and_nothing_else(make_seeds):
    folder = make_seeds("b.png", "a.jpg")
    (folder / "notes.txt").write_text("x")
    assert [u.rsplit("/", 1)[1] for u in uris(str(folder))] == ["a.jpg", "b.png"]


def test_globs_images_and_folders_are_numbered_in_one_sequence(make_seeds):
    folder = make_seeds("a.png", "b.png")
    rows = list(read_seeds([str(folder / "b.png"), f"{folder}/*.png"]))
    assert [(r.seed_uri.rsplit("/", 1)[1], r.ordinal) for r in rows] == [("b.png", 0), ("a.png", 1), ("b.png", 2)]


def test_url_prefix(make_seeds):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/seeds-prefix/one.png", b"1")
    fs.pipe("/seeds-prefix/skip.bin", b"1")
    assert uris("memory://seeds-prefix") == ["memory:///seeds-prefix/one.png"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifest_forms_mean_the_same(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    rows = [
        {"seed": "a.png", "prompt": "a room", "variants": 2, "hfov_deg": 60.0, "license": "CC0-1.0"},
        {"seed": "/x/b.png"},
    ]
    columns = ["seed", "prompt", "variants", "hfov_deg", "license"]
    if kind == "csv":
        lines = [",".join(columns), *(",".join(str(r.get(c, "")) for c in columns) for r in rows)]
        path.write_text("\n".join(lines))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(r) for r in rows))
    else:
        pq.write_table(pa.Table.from_pylist([{c: r.get(c) for c in columns} for r in rows]), path)
    first, second = read_seeds([str(path)])
    assert first == ManifestRow(
        seed_uri=f"{tmp_path}/a.png", ordinal=0, prompt="a room", variants=2, hfov_deg=60.0, license="CC0-1.0"
    )
    assert second == ManifestRow(seed_uri="/x/b.png", ordinal=1)


def test_missing_column_is_one_sentence_that_names_it(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("image,prompt\na.png,x\n")
    with pytest.raises(ManifestError, match=r"wanted a column 'seed'.*found \['image', 'prompt'\]"):
        list(read_seeds([str(path)]))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,many", "'variants' wants int, found 'many'"),
        ("a.png,0", "'variants' wants int"),
        ("a.png,1.5", "'variants' wants int"),
        ("../secret.png,1", "must stay inside the manifest's folder"),
        ("x/../../secret.png,1", "must stay inside"),
        ("s3://bucket/../other/a.png,1", "must stay inside"),
        (",1", "'seed' wants a path or URL"),
    ],
)
def test_a_bad_row_costs_itself_only(tmp_path, row, reason):
    path = tmp_path / "m.csv"
    path.write_text(f"seed,variants\n{row}\ngood.png,1\n")
    bad, good = read_seeds([str(path)])
    assert isinstance(bad, BadRow)
    assert reason in bad.reason
    assert good == ManifestRow(seed_uri=f"{tmp_path}/good.png", ordinal=1, variants=1)


def test_a_line_that_is_no_json_costs_itself_only(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"seed": "a.png"}\n{oops\n[1]\n{"seed": 3}\n{"seed": "b.png"}\n')
    rows = list(read_seeds([str(path)]))
    assert [type(r) for r in rows] == [ManifestRow, BadRow, BadRow, BadRow, ManifestRow]
    assert "line 2 is not JSON" in rows[1].reason


@pytest.mark.parametrize("content", [b"", b"PAR1garbage", b"\xff\xfe\x00"])
def test_a_file_that_is_no_parquet(tmp_path, content):
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.parquet"):
        list(read_seeds([str(path)]))


def test_nothing_there(tmp_path):
    with pytest.raises(ManifestError, match="does not exist"):
        list(read_seeds([str(tmp_path / "nowhere")]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="holds no image"):
        list(read_seeds([str(tmp_path / "empty")]))
