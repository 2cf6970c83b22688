"""Camera files of other programs and of strangers: read whole when first named, and refused without a large reading."""

import io
import json
import os
import resource
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_files import CameraList, read_cameras
from lyra_core.geometry.requests import request_digest_parts

FLAT = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
EYE = np.eye(4).tolist()
POSES = json.dumps([{"position": [0, 0, 0], "look_at": [0, 0, 4]}, {"position": [1, 0, 1]}])


def npz(**changes) -> bytes:
    values = {
        "w2c": np.tile(np.eye(4), (81, 1, 1)),
        "intrinsics": np.array([[100, 0, 48], [0, 100, 32], [0, 0, 1.0]]),
        "image_height": 64,
        "image_width": 96,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{**values, **changes})
    return buffer.getvalue()


def archive(header: bytes, *, padding: int = 0) -> bytes:
    """An .npz whose w2c is these bytes and so many zeros, well packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out, zipfile.ZipFile(io.BytesIO(npz())) as plain:
        for name in plain.namelist():
            out.writestr(name, header + bytes(padding) if name == "w2c.npy" else plain.read(name))
    return buffer.getvalue()


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_changes_nothing(encoding, tmp_path):
    (tmp_path / "plain.json").write_text(POSES, encoding="utf-8")
    (tmp_path / "marked.json").write_text(POSES, encoding=encoding)
    assert len(read_cameras((tmp_path / "marked.json").read_bytes())) == 2
    assert request_digest_parts(tmp_path / "marked.json", 81) == request_digest_parts(tmp_path / "plain.json", 81)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npz(w2c=np.tile(np.diag([2.0, 2, 2, 1]), (81, 1, 1))), "rigid.*frame 0 has a rotation scaled by 2"),
        (npz(w2c=np.tile(np.eye(4) + np.eye(4, k=-3) * 5, (81, 1, 1))), "last row of frame 0.*stored by columns"),
        (npz(w2c=np.full((81, 4, 4), 1e300)), "rigid"),
        (npz(w2c=np.tile(np.eye(4), (100_001, 1, 1)).astype("f2")), "1 to 100000 cameras"),
        (archive(header((10**12, 4, 4))), "promises 128000000000000 bytes where 0 are stored"),
        (archive(header((2**62, 4, 4, 4))), "promises"),
        (archive(header((-1, 4, 4)), padding=2000), "promises"),
        (archive(header((81, 4, 4)), padding=70 * 2**20), "unpacks to"),
        (archive(header((81, 4, 4), "|O"), padding=2000), "pickled objects are refused"),
        (archive(b"\x93NUMPY"), "not a plain .npz"),
        (npz()[:300], "not a plain .npz"),
        (b'[{"position": [1e999, 0, 0]}]', "it holds 1e999"),
        (b'[{"position": [' + b"9" * 400 + b", 0, 0]}]", "below 1e6"),
        (json.dumps({"camera_path": []}).encode(), "camera_path must be a list of objects"),
        (json.dumps({"camera_path": [{"fov": 50}]}).encode(), "camera 0: camera_to_world must be 4 rows"),
        (json.dumps({"camera_path": [{"camera_to_world": FLAT, "fov": 190}]}).encode(), "field of view.*190"),
        (
            json.dumps({"camera_type": "equirectangular", "camera_path": [{"camera_to_world": FLAT}]}).encode(),
            "perspective cameras, found camera_type 'equirectangular'",
        ),
        (json.dumps({"frames": [{"transform_matrix": EYE}]}).encode(), "fl_x or camera_angle_x must be a number"),
        (json.dumps({"frames": [{"transform_matrix": EYE}], "fl_x": 9}).encode(), ": h must be a number"),
        (json.dumps({"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}).encode(), "4 rows of 4 numbers"),
        (json.dumps({"frames": [{"transform_matrix": EYE}], "camera_model": "FISHEYE"}).encode(), "pinhole"),
        (json.dumps({"frames": [{"transform_matrix": (2 * np.eye(4)).tolist()}]}).encode(), "rigid"),
        (json.dumps({"cameras": []}).encode(), r"transforms.json.*camera_path.*found an object with \['cameras'\]"),
        (b"PAR1 torn", "cannot be read as the cameras of a world"),
    ],
)  # fmt: skip
def test_what_is_no_camera_file_is_told_in_one_sentence(data, message, tmp_path):
    name = tmp_path / "cameras.json"
    name.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CameraPathError, match=message) as caught:
        request_digest_parts(name, 81)
    assert str(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB taken by a file that is refused"


def test_a_table_of_something_else_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(CameraPathError, match=r"holds no cameras: wanted columns frame, w2c, K.*found columns \['a'\]"):
        request_digest_parts(tmp_path / "a.parquet", 81)
    long = [[1.0] * 200_000] * 81
    table = pa.table({"frame": list(range(81)), "w2c": long, "K": [[0.0] * 9] * 81})
    size = {"image_height": "64", "image_width": "96"}
    pq.write_table(table.replace_schema_metadata(size), tmp_path / "long.parquet")
    with pytest.raises(CameraPathError, match=r"w2c needs 16 numbers a row.*has 16200000 in 81 rows"):
        request_digest_parts(tmp_path / "long.parquet", 81)


@pytest.mark.parametrize("part", ["pose", "lens", "size", "kind"])
def test_the_digest_covers_all_that_is_read(part, tmp_path):
    document = {"w": 96, "h": 64, "fl_x": 100.0, "frames": [{"transform_matrix": EYE} for _ in range(161)]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    moved = np.eye(4)
    moved[0, 3] = 1e-9
    if part == "pose":
        document["frames"][0] = {"transform_matrix": moved.tolist()}
    elif part == "lens":
        document["fl_x"] = 101.0
    elif part == "size":
        document["w"] = 97
    else:
        document["camera_angle_x"] = 1.0
        del document["fl_x"]
    (tmp_path / "b.json").write_text(json.dumps(document))
    assert not set(request_digest_parts(tmp_path / "a.json", 81)) & set(request_digest_parts(tmp_path / "b.json", 81))
    assert request_digest_parts(tmp_path / "a.json", 81) == request_digest_parts(tmp_path / "a.json", 161)[:1]


def test_a_camera_path_has_ids_of_its_number_of_frames_and_of_its_field_of_view(tmp_path):
    def parts(frames: int, **camera) -> set[bytes]:
        (tmp_path / "c.json").write_text(json.dumps({"camera_path": [{"camera_to_world": FLAT, **camera}]}))
        return set(request_digest_parts(tmp_path / "c.json", frames))

    found = [parts(81, fov=50), parts(161, fov=50), parts(81, fov=51), parts(81)]
    assert len(set.union(*found)) == 5


def test_one_camera_without_anything_else_is_enough():
    cameras = read_cameras(json.dumps({"camera_path": [{"camera_to_world": FLAT, "fov": 50}], "seconds": 4}).encode())
    assert isinstance(cameras, CameraList)
    assert cameras.is_spread
    np.testing.assert_array_equal(cameras.world_to_cam[0], np.diag([1.0, -1, -1, 1]))


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
def test_what_cannot_be_read_to_its_end_is_refused_before_it_is_opened(tmp_path, kind):
    path = tmp_path / "path.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(CameraPathError, match="is no file that can be read as a whole; name a camera file"):
        request_digest_parts(path, 81)


def test_camera_files_are_of_this_machine():
    with pytest.raises(CameraPathError, match=r"found the URL https://host/a.json\?x=a.json; download it"):
        request_digest_parts("https://u:secret@host/a.json?sig=secret&x=a.json", 81)
