"""Triangle meshes in files: GLB for viewers and simulators, OBJ for MuJoCo, which reads no GLB.

A mesh is in the ground frame (z up, y forward). GLB is written with its own axes (y up), OBJ as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from lyra_core.errors import FormatError
from lyra_core.formats.glb import ELEMENT_BUFFER, GlbWriter
from lyra_core.replacing import replacing

# glTF 2.0: x right, y up, z backward of what looks forward.
GROUND_TO_GLTF = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


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
    glb = GlbWriter()
    attributes = {"POSITION": glb.add((mesh.vertices @ GROUND_TO_GLTF.T).astype("<f4"), has_bounds=True)}
    indices = glb.add(mesh.faces.astype("<u4").ravel(), ELEMENT_BUFFER)
    if mesh.colors is not None:
        attributes["COLOR_0"] = glb.add(linear_rgba(mesh.colors), is_normalized=True)
    document: dict[str, object] = {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}],
    }
    glb.write(document, file)


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


def vertex_normals(mesh: Mesh) -> Float[np.ndarray, "v 3"]:
    """Unit normals of the vertices: those of their triangles, weighted by area; upwards where a vertex has none."""
    corners = mesh.vertices[mesh.faces]
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(mesh.vertices)
    for corner in range(3):
        np.add.at(normals, mesh.faces[:, corner], crosses)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / length.clip(1e-300), [0.0, 0.0, 1.0])


def linear_rgba(
    colors: Float[np.ndarray, "v 3"], alpha: Float[np.ndarray, " v"] | None = None
) -> UInt8[np.ndarray, "v 4"]:
    """sRGB of 0 to 1 as linear bytes: glTF reads vertex colours as linear light (2.0 specification, 3.9.2)."""
    srgb = colors.clip(0.0, 1.0)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    bytes_ = np.full((len(colors), 4), 255, np.uint8)
    bytes_[:, :3] = np.round(255.0 * linear)
    if alpha is not None:
        bytes_[:, 3] = np.round(255.0 * alpha.clip(0.0, 1.0))
    return bytes_


def _require_writable(mesh: Mesh) -> None:
    if len(mesh.faces) == 0:
        raise FormatError("a mesh file needs at least one triangle, found none")
    bad = int((~np.isfinite(mesh.vertices)).any(1).sum())
    if bad:
        raise FormatError(f"the vertices of a mesh must be finite; {bad} of {len(mesh.vertices)} are not")
