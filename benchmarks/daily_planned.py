"""Cases that planning decides, for benchmarks/daily_inputs.py: names, sources, manifests, camera files."""

from __future__ import annotations

import gzip
import io
import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from daily_desk import Build, Planned, jpeg, picture, put

POSES = json.dumps([{"position": [0, 0, 0], "look_at": [0, 0, 4]}, {"position": [1, 0, 1], "look_at": [0, 0, 4]}])
FLAT = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
ODD_NAMES = (
    *("a b.jpg", "a#b.jpg", "100%25.jpg", "a?b.jpg", "a*b.jpg", "we::ird.jpg", "12:30:05.jpg", "-dash.jpg"),
    *("em\N{GRINNING FACE}ji.jpg", "new\nline.jpg", "tab\t.jpg", "quote\"'.jpg", "b[1].jpg"),
)


def all_planned() -> list[Planned]:
    return [*_names(), *_sources(), *_manifest_values(), *_manifest_formats(), *_camera_files(), *_recipes()]


def _photos(*names: str, ask: tuple[str, ...] = (".",)) -> Build:
    def build(folder: Path) -> tuple[str, ...]:
        put(folder, *names)
        return ask

    return build


def _links(folder: Path) -> tuple[str, ...]:
    put(folder, "blobs/0", "blobs/1", "snap/real.jpg")
    for index in range(2):
        (folder / "snap" / f"p{index}.jpg").symlink_to(f"../blobs/{index}")
    (folder / "snap" / "gone.jpg").symlink_to("../blobs/9")
    return ("snap",)


def _formats(folder: Path) -> tuple[str, ...]:
    kinds = {"jpg": "JPEG", "avif": "AVIF", "jfif": "JPEG", "gif": "GIF", "jp2": "JPEG2000", "ppm": "PPM"}
    for index, (suffix, kind) in enumerate(kinds.items()):
        picture(index).save(folder / f"p{index}.{suffix}", kind)
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    return (".",)


def _hidden(folder: Path) -> tuple[str, ...]:
    put(folder, "IMG_1.jpg", ".hidden.jpg", "._IMG_1.jpg")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "b.jpg.part").write_bytes(b"x")
    return (".",)


def _latin(folder: Path) -> tuple[str, ...]:
    put(folder, "ok.jpg", "other.jpg")
    (folder / "other.jpg").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    return (".",)


def _encoded_url(folder: Path) -> tuple[str, ...]:
    put(folder, "my photos/a b.jpg")
    return ((folder / "my photos" / "a b.jpg").as_uri(),)


def _composed(folder: Path) -> tuple[str, ...]:
    put(folder, unicodedata.normalize("NFD", "caf\u00e9.jpg"))
    (folder / "m.csv").write_text("seed\n" + unicodedata.normalize("NFC", "caf\u00e9.jpg") + "\n", encoding="utf-8")
    return ("m.csv",)


def _odd_manifest(folder: Path) -> tuple[str, ...]:
    import csv

    put(folder, *ODD_NAMES)
    with (folder / "m.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["seed"], *([name] for name in ODD_NAMES)])
    return ("m.csv",)


def _names() -> list[Planned]:
    both = ("IMG[1].jpg", "IMG1.jpg", "plain.jpg")
    cases: list[tuple[str, Build, int, int, str]] = [
        ("IMG[1].jpg beside IMG1.jpg, as a shell names them", _photos(*both, ask=both), 3, 0, ""),
        ("a folder with brackets", _photos("[2024] trip/a.jpg", ask=("[2024] trip",)), 1, 0, ""),
        ("a pattern", _photos("a1.jpg", "a2.jpg", "b.png", ask=("a*.jpg",)), 2, 0, ""),
        ("a folder of links, one to nothing", _links, 3, 1, "gone.jpg.*nothing there"),
        ("formats the decoder knows, and one it does not", _formats, 6, 0, "HEIC"),
        ("hidden, companion and half-loaded files", _hidden, 1, 0, "1 file|part|Thumbs"),
        ("13 odd names in a folder", _photos(*ODD_NAMES), 13, 0, ""),
        ("13 odd names in a manifest", _odd_manifest, 13, 0, ""),
        ("a name that begins with a dash", _photos("-dash.jpg", ask=("--", "./-dash.jpg")[1:]), 1, 0, ""),
        ("a name that is not UTF-8", _latin, 2, 0, ""),
        ("%20 of a file:// URL", _encoded_url, 1, 0, ""),
        ("decomposed on disk, composed in the manifest", _composed, 1, 0, ""),
        ("a folder named like a picture", _photos("pics.jpg/x.png", ask=("pics.jpg",)), 1, 0, ""),
    ]
    return [Planned(group="Names", case=c, build=b, made=m, rejects=r, says=s) for c, b, m, r, s in cases] + [
        Planned(
            group="Names", case="a camera card: folders only", code=2, says="100CANON",
            build=_photos("DCIM/100CANON/IMG_1.JPG", ask=("DCIM",)),
        ),
    ]  # fmt: skip


def _pipe(folder: Path) -> tuple[str, ...]:
    os.mkfifo(folder / "m.csv")
    return ("m.csv",)


def _sources() -> list[Planned]:
    rows = "seed\na.jpg\nfoo://z/y.jpg\nnowhere.jpg\n/dev/zero\nzip://x.jpg::a.jpg\n"
    return [
        Planned(group="Sources", case="an unknown protocol", code=2, says="foo", build=lambda _: ("foo://bucket/x",)),
        Planned(
            group="Sources", case="unknown protocol, nothing, a device and a chain among rows",
            build=_manifest("m.csv", rows), made=1, rejects=4, says="line 3.*line 4.*line 5.*line 6",
        ),
        Planned(group="Sources", case="a named pipe", code=2, says="named pipe", build=_pipe),
        Planned(group="Sources", case="a device", code=2, says="device", build=lambda _: ("/dev/zero",)),
        Planned(group="Sources", case="an empty name", code=2, says="empty name", build=lambda _: ("",)),
    ]  # fmt: skip


def _manifest(name: str, content: str | bytes, *more: str) -> Build:
    """Four photographs and a manifest beside them."""

    def build(folder: Path) -> tuple[str, ...]:
        put(folder, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return (name, *more)

    return build


def _values() -> dict[str, str]:
    """Rows that are wrong, each in its own way; the value's column comes first."""
    return {
        "frames": "inf", "variants": "20240131", "hfov_deg": "400", "prompt": "nul\0here",
        "camera_path": "gone.npz",
    }  # fmt: skip


def _bad_rows() -> str:
    rows = [
        '{"seed":"a.jpg"}',
        *(json.dumps({"seed": "b.jpg", **dict([item])}) for item in _values().items()),
    ]
    rows += ['{"seed":"nowhere.jpg"}', '{"seed":"b.jpg","hfov_deg":NaN}', '{"seed":"b.jpg","hfov_deg":-5}']
    rows += ['{"seed":"b.jpg","hfov_deg":0}', '{"seed":"b.jpg","variants":1e999}', '{"seed":"b.jpg","frames":80000001}']
    rows += ['{"seed":"b.jpg","frames":%s}' % ("9" * 5000), '{"seed":"b.jpg","prompt":"\\ud800"}', "[" * 100_000]
    rows += ['{"seed":"b.jpg","prompt":"%s"}' % ("x" * 200_000), "not json", '{"seed":"c.jpg"}', ""]
    return "\n".join(rows)


def _manifest_values() -> list[Planned]:
    def case(name: str, content: str, made: int, rejects: int, says: str, file: str = "m.csv") -> Planned:
        build = _manifest(file, content)
        return Planned(group="Manifests", case=name, build=build, made=made, rejects=rejects, says=says)

    return [
        case("17 wrong rows between 2 good ones", _bad_rows(), 2, 16, "line 2.*line 3", "m.jsonl"),
        case("NaN and infinity in a table", "seed,hfov_deg,frames\na.jpg,nan,\nb.jpg,60,\nc.jpg,,inf\n", 1, 2, "nan"),
        case("an unquoted comma", "seed,prompt,license\na.jpg,a room, light,CC0-1.0\nb.jpg,x,CC0-1.0\n", 1, 1, "comma"),
        case("a quote that never closes", 'seed,prompt\na.jpg,ok\nb.jpg,"open\nc.jpg,x\nd.jpg,y\n', 3, 1, "line 3"),
        case("blank rows of a spreadsheet", "seed,prompt\na.jpg,x\n,\n,\n,\n", 1, 0, ""),
        case("a NUL character", "seed,prompt\na.jpg,x\0y\nb.jpg,z\n", 1, 1, "line 2.*NUL"),
        case("a Windows path of another machine", "seed\nC:\\photos\\a.jpg\na.jpg\n", 1, 1, "Windows"),
        case("a row that leaves the folder", "seed\n../a.jpg\na.jpg\n", 1, 1, r"\.\."),
        case("header in another spelling", "Seed, prompt,Camera_Path,license\na.jpg,x,orbit-left,CC0\n", 1, 0, ""),
        Planned(
            group="Manifests", case="a misspelt column", code=2, says="promt.*prompt",
            build=_manifest("m.csv", "seed,promt\na.jpg,a room\n"),
        ),
        Planned(
            group="Manifests", case="a column twice", code=2, says="prompt",
            build=_manifest("m.csv", "seed,prompt,prompt\na.jpg,one,\n"),
        ),
    ]  # fmt: skip


def _parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _spark(folder: Path) -> tuple[str, ...]:
    put(folder, "a.jpg")
    (folder / "dir.parquet").mkdir()
    (folder / "dir.parquet" / "part-0.parquet").write_bytes(_parquet(seed=["a.jpg"]))
    (folder / "dir.parquet" / "_SUCCESS").touch()
    return ("dir.parquet",)


def _manifest_formats() -> list[Planned]:
    names = ["a.jpg", "b.jpg"]
    structs = pa.array([{"bytes": jpeg(1), "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}])
    good = {
        "m.csv semicolons": "seed;prompt;license\r\na.jpg;a room;CC0-1.0\r\nb.jpg;x;y\r\n",
        "m.csv sep= line": "sep=,\r\nseed,prompt\r\na.jpg,a room\r\nb.jpg,x\r\n",
        "m.csv Windows-1252": "seed,attribution\na.jpg,Andr\u00e9\nb.jpg,Zo\u00eb\n".encode("cp1252"),
        "m.csv UTF-16": "seed,prompt\na.jpg,x\nb.jpg,y\n".encode("utf-16"),
        "m.csv CR lines": b"seed,prompt\ra.jpg,x\rb.jpg,y\r",
        "m.csv a line break in a cell": 'seed,prompt\na.jpg,"two\nlines"\nb.jpg,y\n',
        "m.csv.gz": gzip.compress(b"seed\na.jpg\nb.jpg\n"),
        "m.tsv": "seed\tprompt\na.jpg\tx\nb.jpg\ty\n",
        "m.txt": "a.jpg\nb.jpg\n",
        "m.json": '[{"seed":"a.jpg"},"b.jpg"]',
        "m.parquet dictionary": _parquet(seed=pa.array(names).dictionary_encode()),
        "m.parquet large_string": _parquet(seed=pa.array(names, pa.large_string())),
        "m.parquet string_view": _parquet(seed=pa.array(names, pa.string_view())),
        "m.parquet binary": _parquet(seed=pa.array([b"a.jpg", b"b.jpg"])),
    }
    cases = [
        Planned(group="Manifests", case=name, build=_manifest(name.partition(" ")[0], content), made=2)
        for name, content in good.items()
    ]
    nan = _parquet(seed=names, hfov_deg=pa.array([60.0, float("nan")]))
    return [
        *cases,
        Planned(group="Manifests", case="a folder of parts", build=_spark, made=1),
        Planned(
            group="Manifests", case="m.parquet NaN", build=_manifest("m.parquet", nan), made=1, rejects=1, says="nan"
        ),
        Planned(
            group="Manifests", case="m.parquet with image structs",
            build=_manifest("m.parquet", _parquet(seed=structs)),
            code=2, says="holds pictures",
        ),
        Planned(
            group="Manifests", case="a spreadsheet", code=2, says="[Cc][Ss][Vv]",
            build=_manifest("m.xlsx", b"PK\3\4" + bytes(100)),
        ),
    ]  # fmt: skip


def _npz(scale: float = 1.0) -> bytes:
    poses = np.tile(np.eye(4), (81, 1, 1))
    poses[:, :3, :3] *= scale
    lens = np.array([[100, 0, 48], [0, 100, 32], [0, 0, 1.0]])
    buffer = io.BytesIO()
    np.savez(buffer, w2c=poses, intrinsics=lens, image_height=64, image_width=96)
    return buffer.getvalue()


def _bomb() -> bytes:
    """An .npz whose header promises a terabyte."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**10, 4, 4)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out, zipfile.ZipFile(io.BytesIO(_npz())) as plain:
        for name in plain.namelist():
            out.writestr(name, head.getvalue() if name == "w2c.npy" else plain.read(name))
    return buffer.getvalue()


def _with_camera(name: str, content: str | bytes | None) -> Build:
    def build(folder: Path) -> tuple[str, ...]:
        put(folder, "p/a.jpg", "p/b.jpg", "p/c.jpg")
        if content is None:
            os.mkfifo(folder / name)
        else:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return ("p", "--camera-path", name)

    return build


def _beside_manifest(folder: Path) -> tuple[str, ...]:
    put(folder, "set/a.jpg", "set/b.jpg", "set/c.jpg")
    (folder / "set" / "path.json").write_text(POSES)
    (folder / "set" / "m.csv").write_text("seed,camera_path\na.jpg,path.json\nb.jpg,gone.json\nc.jpg,dolly-on\n")
    return ("set/m.csv",)


def _camera_files() -> list[Planned]:
    nerfstudio = {"camera_path": [{"camera_to_world": FLAT, "fov": 50}] * 2, "seconds": 4}
    frames = [{"file_path": f"f{i:03d}.png", "transform_matrix": np.eye(4).tolist()} for i in range(81)]
    transforms = {"w": 96, "h": 64, "fl_x": 100, "fl_y": 100, "cx": 48, "cy": 32, "frames": frames}
    good: dict[str, str | bytes] = {
        "poses.json": POSES, "bom.json": b"\xef\xbb\xbf" + POSES.encode(), "camera_path.json": json.dumps(nerfstudio),
        "transforms.json": json.dumps(transforms), "path.npz": _npz(),
    }  # fmt: skip
    bad: dict[str, tuple[str | bytes | None, str]] = {
        "scaled.npz": (_npz(2.0), "rigid|rotation|scale"),
        "huge.npz": (_bomb(), "promises"),
        "other.json": ('{"hello": 1}', "other.json"),
        "deep.json": ("[" * 100_000, "deep.json"),
        "pipe.json": (None, "no file that can be read"),
        "short.npz": (_npz()[:200], "short.npz"),
    }
    return [
        *(Planned(group="Camera files", case=n, build=_with_camera(n, c), made=3) for n, c in good.items()),
        *(
            Planned(group="Camera files", case=f"{n}, told once", build=_with_camera(n, c), code=1, says=s)
            for n, (c, s) in bad.items()
        ),
        Planned(
            group="Camera files", case="beside a manifest, two of three wrong", build=_beside_manifest, made=1,
            rejects=2, says="line 3.*line 4.*dolly-in",
        ),
        Planned(
            group="Camera files", case="a URL", code=1, says="download it",
            build=_photos("a.jpg", ask=("a.jpg", "--camera-path", "https://host/path.json")),
        ),
    ]  # fmt: skip


def _recipes() -> list[Planned]:
    refused = {
        "--frames 80000001": (("--frames", "80000001"), "8001"),
        "--frames 100": (("--frames", "100"), "81 and 161"),
        "a width that the model cannot work at": (("--set", "width=100"), "multiples of 8"),
        "steps of the student": (("--set", "video.num_steps=8"), "video.sampler=euler"),
        "a tier that is none": (("--set", "reconstruction.tier=large"), "100k"),
        "infinity": (("--set", "video.shift=inf"), "finite"),
    }
    return [
        Planned(group="Output", case=f"recipe: {name}", code=2, says=says, build=_photos("a.jpg", ask=("a.jpg", *ask)))
        for name, (ask, says) in refused.items()
    ]
