"""Triangle meshes in files: GLB for viewers and simulators, OBJ for MuJoCo, which reads no GLB.

A mesh is in the ground frame (z up, y forward). GLB is written with its own axes (y up), OBJ as it is.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from lyra_core.errors import FormatError
from lyra_core.replacing import replacing

# glTF 2.0: x right, y up, z backward of what looks forward.
GROUND_TO_GLTF = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_FLOAT, _UNSIGNED_INT, _UNSIGNED_BYTE = 5126, 5125, 5121


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Triangles.

    Attributes:
        vertices: ground frame, metres where these are known. [v 3] float64
        faces: indices of corners, anticlockwise seen from outside. [f 3] int64
        colors: sRGB, 0 to 1, of each vertex, or None. [v 3]
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: Float[np.ndarray, "v 3"] | None = None

    def __len__(self) -> int:
        return len(self.faces)


def write_glb(mesh: Mesh, file: str | Path, name: str = "world") -> None:
    """Write a binary glTF 2.0 file with one mesh, y up.

    Raises:
        FormatError: no triangle, or a vertex that is not finite.
    """
    _require_writable(mesh)
    positions = (mesh.vertices @ GROUND_TO_GLTF.T).astype("<f4")
    parts = [positions.tobytes(), mesh.faces.astype("<u4").tobytes()]
    attributes, accessors = (
        {"POSITION": 0},
        [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": len(positions),
                "type": "VEC3",
                "min": positions.min(0).tolist(),
                "max": positions.max(0).tolist(),
            },
            {"bufferView": 1, "componentType": _UNSIGNED_INT, "count": int(mesh.faces.size), "type": "SCALAR"},
        ],
    )
    targets = [_ARRAY_BUFFER, _ELEMENT_BUFFER]
    if mesh.colors is not None:
        attributes["COLOR_0"] = 2
        parts.append(_vertex_colors(mesh.colors).tobytes())
        targets.append(_ARRAY_BUFFER)
        accessors.append(
            {
                "bufferView": 2,
                "componentType": _UNSIGNED_BYTE,
                "normalized": True,
                "count": len(positions),
                "type": "VEC4",
            }
        )
    views, offset = [], 0
    for data, target in zip(parts, targets, strict=True):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(data), "target": target})
        offset += len(data)
    document = {
        "asset": {"version": "2.0", "generator": "lyra-worlds"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    header = json.dumps(document, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 4)
    body = b"".join(parts)
    body += b"\0" * (-len(body) % 4)
    with replacing(file) as temporary, temporary.open("wb") as out:
        out.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(header) + 8 + len(body)))
        out.write(struct.pack("<I4s", len(header), b"JSON") + header)
        out.write(struct.pack("<I4s", len(body), b"BIN\0") + body)


def write_obj(mesh: Mesh, file: str | Path, name: str = "world") -> None:
    """Write Wavefront OBJ, z up, without colours.

    Raises:
        FormatError: no triangle, or a vertex that is not finite.
    """
    _require_writable(mesh)
    lines = [f"o {name}"]
    lines += [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    with replacing(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def _vertex_colors(colors: np.ndarray) -> np.ndarray:
    """Linear RGBA bytes: glTF reads vertex colours as linear light (2.0 specification, 3.9.2)."""
    srgb = colors.clip(0.0, 1.0)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    bytes_ = np.full((len(colors), 4), 255, np.uint8)
    bytes_[:, :3] = np.round(255.0 * linear)
    return bytes_


def _require_writable(mesh: Mesh) -> None:
    if len(mesh.faces) == 0:
        raise FormatError("a mesh file needs at least one triangle, found none")
    bad = int((~np.isfinite(mesh.vertices)).any(1).sum())
    if bad:
        raise FormatError(f"the vertices of a mesh must be finite; {bad} of {len(mesh.vertices)} are not")
