"""Manifests as users write them and get them wrong: one bad row is one reject that names it."""

from __future__ import annotations

import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lyra_core.errors import ManifestError
from tasks.manifest import BadRow, ManifestRow, read_seeds


def read(tmp_path, name: str, content: str | bytes, tell=None) -> list[ManifestRow | BadRow]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_seeds([str(path)], tell))


def names(rows) -> list[str]:
    return [row.seed_uri.rsplit("/", 1)[1] for row in rows]


def reasons(rows) -> list[str | None]:
    return [row.reason if isinstance(row, BadRow) else None for row in rows]


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
        ("a.png,many", "m.csv, line 2: 'variants' wants a whole number from 1 to 1,000, found 'many'"),
        ("a.png,0", "'variants' wants a whole number"),
        ("a.png,1.5", "'variants' wants a whole number"),
        ("a.png,20240131", "from 1 to 1,000 (the limit of a recipe), found '20240131'"),
        ("a.png,inf", "'variants' wants a whole number"),
        ("a.png," + "9" * 5000, "'variants' wants a whole number"),
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
    assert "line 2: it is not JSON" in rows[1].reason


@pytest.mark.parametrize("content", [b"", b"PAR1garbage", b"\xff\xfe\x00"])
def test_a_file_that_is_no_parquet(tmp_path, content):
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.parquet"):
        list(read_seeds([str(path)]))


def test_one_manifest_of_several_sources_that_cannot_be_read_costs_itself_only(tmp_path, make_seeds):
    (tmp_path / "m.parquet").write_bytes(b"PAR1garbage")
    folder = make_seeds("a.png")
    rows = list(read_seeds([str(tmp_path / "m.parquet"), str(tmp_path / "nowhere"), str(folder)]))
    assert [type(row) for row in rows] == [BadRow, BadRow, ManifestRow]
    assert [row.ordinal for row in rows] == [0, 1, 2]


VALUES = [
    ("hfov_deg", "NaN", "'hfov_deg' wants degrees between 5 and 175, found nan"),
    ("hfov_deg", "400", "between 5 and 175, found 400"),
    ("hfov_deg", "-5", "between 5 and 175"),
    ("hfov_deg", "0", "between 5 and 175"),
    ("hfov_deg", "true", "between 5 and 175, found True"),
    ("variants", "1e999", "a whole number from 1 to 1,000, found inf"),
    ("variants", "1" * 4000, "found a number of more than 60 digits"),
    ("variants", "9" * 5000, "it is not JSON (Exceeds the limit"),
    ("frames", "80000001", "from 1 to 8,001 (100 chunks of 80 frames), found 80000001"),
    ("prompt", '"a\\u0000b"', "'prompt' holds a NUL character"),
    ("prompt", '"\\ud800"', "'prompt' holds half of a surrogate pair"),
    ("prompt", f'"{"x" * 200_000}"', "'prompt' holds 200,000 characters; at most 100,000 are read"),
    ("prompt", '["x"]', "'prompt' wants text, found a list of 1"),
    ("prompt", '{"bytes": "' + "x" * 500 + '"}', "'prompt' wants text, found an object with bytes"),
    ("license", "[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("column", "value", "reason"), VALUES)
def test_a_value_out_of_all_bounds_costs_its_row_only(tmp_path, column, value, reason):
    bad, good = read(tmp_path, "m.jsonl", f'{{"seed": "a.png", "{column}": {value}}}\n{{"seed": "b.png"}}\n')
    assert isinstance(bad, BadRow)
    assert "m.jsonl, line 1: " in bad.reason
    assert reason in bad.reason
    assert len(bad.reason) < 400
    assert names([good]) == ["b.png"]


def test_values_in_messages_are_short_and_without_secrets(tmp_path):
    url = "https://user:pass@host/a.jpg?X-Amz-Signature=SECRET"
    long, signed = read(tmp_path, "m.csv", f"seed,frames\na.png,{'7x' * 5000}\nb.png,{url}\n")
    assert len(long.reason) < 300
    assert "SECRET" not in signed.reason
    assert "pass" not in signed.reason


def test_blank_rows_are_no_rows(tmp_path):
    assert names(read(tmp_path, "m.csv", "seed,prompt\na.png,x\n,\n ,\t\n\n\nb.png,\n,\n")) == ["a.png", "b.png"]
    assert names(read(tmp_path, "m.jsonl", '{"seed": "a.png"}\n{}\n{"seed": null, "prompt": ""}\n')) == ["a.png"]
    pq.write_table(pa.table({"seed": ["a.png", None, " "], "prompt": [None, None, ""]}), tmp_path / "m.parquet")
    assert names(read_seeds([str(tmp_path / "m.parquet")])) == ["a.png"]


def test_a_manifest_without_rows_is_told(tmp_path):
    notices: list[str] = []
    assert read(tmp_path, "m.csv", "seed,prompt\n", notices.append) == []
    assert notices == [f"manifest {tmp_path}/m.csv: it holds no row"]


@pytest.mark.parametrize(
    "header",
    [
        "Seed, prompt,Camera_Path,license",
        "\ufeffseed,PROMPT,camera path,License",
        '"seed","prompt",camera-path,LICENCE',
    ],
)
def test_spelling_of_a_header_does_not_matter(tmp_path, header):
    (row,) = read(tmp_path, "m.csv", f"{header}\na.png,a room,pan-left,CC0-1.0\n")
    assert (row.prompt, row.camera_path, row.license) == ("a room", "pan-left", "CC0-1.0")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("seed,promt", "column 'promt' is not known, did you mean 'prompt'"),
        ("seed,caption", "column 'caption' is not known, did you mean 'prompt'"),
        ("seed,num_frames", "column 'num_frames' is not known, did you mean 'frames'"),
        ("file_name,prompt", "wanted a column 'seed'.* did you mean 'file_name'"),
        ("image,prompt", "wanted a column 'seed'.* did you mean 'image'"),
        ("seed,prompt,Prompt", "the column 'prompt' stands there more than once"),
    ],
)
def test_a_near_miss_in_a_header_is_an_error_that_names_both(tmp_path, header, message):
    with pytest.raises(ManifestError, match=message):
        read(tmp_path, "m.csv", f"{header}\na.png,x\n")


def test_other_columns_are_ignored(tmp_path):
    rows = read(tmp_path, "m.csv", "id,seed,prompt,caption,url,width,,\n1,a.png,x,y,https://h/p,640,,\n")
    assert rows == [ManifestRow(seed_uri=f"{tmp_path}/a.png", ordinal=0, prompt="x")]


def test_a_near_miss_in_one_json_row_costs_that_row_only(tmp_path):
    rows = read(tmp_path, "m.jsonl", '{"seed": "a.png"}\n{"seed": "b.png", "promt": "x"}\n{"seed": "c.png", "id": 3}\n')
    assert [type(row) for row in rows] == [ManifestRow, BadRow, ManifestRow]
    assert "column 'promt' is not known, did you mean 'prompt'" in rows[1].reason


def test_json_rows_without_a_seed(tmp_path):
    with pytest.raises(ManifestError, match="did you mean 'image'"):
        read(tmp_path, "m.jsonl", '{"image": "a.png"}\n{"image": "b.png"}\n')
    rows = read(tmp_path, "m.jsonl", '{"prompt": "x"}\n{"seed": "b.png"}\n')
    assert [type(row) for row in rows] == [BadRow, ManifestRow]
    with pytest.raises(ManifestError, match="none of its first 100 rows can be read; it is not JSON"):
        read(tmp_path, "m.jsonl", "plain text\n" * 200)


def test_a_reject_without_a_seed_is_known_by_its_place(tmp_path):
    rows = read(tmp_path, "m.csv", "seed,prompt\n,x\n,y\n")
    assert [row.seed_uri for row in rows] == [f"{tmp_path}/m.csv#line=2", f"{tmp_path}/m.csv#line=3"]


def test_paths_of_other_systems(tmp_path, make_seeds):
    make_seeds("e.png", folder="sub")
    inside, drive, share = read(tmp_path, "m.csv", "seed\nsub\\e.png\nC:\\photos\\a.jpg\n\\\\server\\a.jpg\n")
    assert inside.seed_uri == f"{tmp_path}/sub/e.png"
    assert all("wants a path of this machine, found the Windows path" in row.reason for row in (drive, share))


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_unicode_forms_of_one_name_are_one_file(tmp_path, on_disk, written):
    folder = tmp_path / unicodedata.normalize(on_disk, "été")
    folder.mkdir()
    (folder / unicodedata.normalize(on_disk, "café.jpg")).touch()
    (row,) = read(tmp_path, "m.csv", f"seed\n{unicodedata.normalize(written, 'été/café.jpg')}\n")
    assert row.seed_uri == f"{folder}/{unicodedata.normalize(on_disk, 'café.jpg')}"


def test_file_urls_are_decoded(tmp_path):
    (tmp_path / "my photos").mkdir()
    photo = tmp_path / "my photos" / "a b.jpg"
    photo.touch()
    literal = tmp_path / "100%20.jpg"
    literal.touch()
    rows = read(tmp_path, "m.csv", f"seed\n{photo.as_uri()}\nfile://{literal}\nfile://localhost{photo}\n")
    assert [row.seed_uri for row in rows] == [str(photo), str(literal), str(photo)]
    (outside,) = read(tmp_path, "m.csv", f"seed\nfile://{tmp_path}/x/%2e%2e/secret.jpg\n")
    assert "must stay inside" in outside.reason


def test_camera_files_are_relative_to_the_manifest(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    rows = read(
        tmp_path,
        "m.csv",
        "seed,camera_path\na.png,paths/p.json\na.png,/x/p.npz\na.png,pan-left\na.png,x.parquet\na.png,~/p.json\n",
    )
    wanted = [f"{tmp_path}/paths/p.json", "/x/p.npz", "pan-left", f"{tmp_path}/x.parquet", "~/p.json"]
    assert [row.camera_path for row in rows] == wanted


def test_camera_files_that_are_not_on_this_machine_cost_their_row():
    from tasks.manifest_rows import RowError
    from tasks.seed_paths import ManifestFolder

    beside = ManifestFolder("https://host/sets/m.csv?sig=secret")
    assert beside.camera_path("pan-left") == "pan-left"
    assert beside.camera_path("/paths/p.json") == "/paths/p.json"
    with pytest.raises(RowError, match=r"beside the manifest at https://host/sets: 'p\.json'; download it"):
        beside.camera_path("p.json")
    with pytest.raises(RowError, match=r"found a URL: 's3://bucket/p\.npz'"):
        ManifestFolder("/photos/m.csv").camera_path("s3://bucket/p.npz")


def test_names_in_a_manifest_on_a_server_begin_at_its_folder():
    from tasks.seed_paths import ManifestFolder

    folder = ManifestFolder("https://user@host/sets/m.csv?sig=a/b")
    assert folder.seed("one.jpg") == "https://user@host/sets/one.jpg"
    assert ManifestFolder("s3://bucket/m.csv").seed("C:/odd.jpg") == "s3://bucket/C:/odd.jpg"
