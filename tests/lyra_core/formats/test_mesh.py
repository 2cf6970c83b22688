"""Meshes are read back by a reader that was not written here, with axes and colours where they belong."""

import json
import struct

import numpy as np
import pytest

from lyra_core.errors import FormatError
from lyra_core.formats.mesh import Mesh, write_glb, write_obj

# Three corners with a coordinate of their own each: x right, y forward, z up.
MESH = Mesh(
    vertices=np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]),
    faces=np.array([[0, 1, 2], [0, 3, 1]]),
    colors=np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.5]]),
)


def read_glb(path):
    """Header, JSON and binary chunk by the letter of the glTF 2.0 specification, section 4.4."""
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON"
    assert size % 4 == 0
    document, rest = json.loads(data[20 : 20 + size]), data[20 + size :]
    size, kind = struct.unpack("<I4s", rest[:8])
    assert (kind, size % 4, size) == (b"BIN\0", 0, len(rest) - 8)
    return document, rest[8:]


def array(document, body, accessor: int) -> np.ndarray:
    found = document["accessors"][accessor]
    view = document["bufferViews"][found["bufferView"]]
    kind = {5126: "<f4", 5125: "<u4", 5121: "u1"}[found["componentType"]]
    width = {"VEC3": 3, "VEC4": 4, "SCALAR": 1}[found["type"]]
    count = found["count"] * width
    return np.frombuffer(body, kind, count, view["byteOffset"]).reshape(found["count"], width)


def test_glb_has_y_up_and_forward_is_minus_z(tmp_path):
    write_glb(MESH, tmp_path / "a.glb")
    document, body = read_glb(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    positions = array(document, body, primitive["attributes"]["POSITION"])
    np.testing.assert_array_equal(positions, [[1, 0, 0], [0, 0, -2], [0, 3, 0], [0, 0, 0]])
    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
    assert (accessor["min"], accessor["max"]) == ([0, 0, -2], [1, 3, 0])
    np.testing.assert_array_equal(array(document, body, primitive["indices"]).reshape(-1, 3), MESH.faces)
    colors = array(document, body, primitive["attributes"]["COLOR_0"])
    np.testing.assert_array_equal(colors[:3], [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]])
    assert colors[3, 0] == 55  # sRGB 0.5 as linear light


def test_glb_is_opened_by_trimesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    write_glb(MESH, tmp_path / "a.glb")
    (found,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    np.testing.assert_allclose(found.vertices, [[1, 0, 0], [0, 0, -2], [0, 3, 0], [0, 0, 0]])


def test_obj_keeps_the_ground_frame(tmp_path):
    write_obj(MESH, tmp_path / "a.obj")
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    np.testing.assert_array_equal([[float(v) for v in line[1:]] for line in lines if line[0] == "v"], MESH.vertices)
    np.testing.assert_array_equal([[int(v) - 1 for v in line[1:]] for line in lines if line[0] == "f"], MESH.faces)


@pytest.mark.parametrize("write", [write_glb, write_obj])
def test_what_cannot_be_a_mesh_file_is_refused(tmp_path, write):
    with pytest.raises(FormatError, match="at least one triangle"):
        write(Mesh(vertices=MESH.vertices, faces=MESH.faces[:0]), tmp_path / "a")
    bad = MESH.vertices.copy()
    bad[1, 1] = np.nan
    with pytest.raises(FormatError, match="1 of 4 are not"):
        write(Mesh(vertices=bad, faces=MESH.faces), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
