"""Gaussians as binary glTF with the extension KHR_gaussian_splatting (Khronos, ratified text).

The ratified extension wants linear scales; its drafts had logarithms. Arrays are those of the world frame, and the root
node turns and scales them to glTF's axes (x right, y up, z backward): by half a turn about x where no floor is known. A
reader turns harmonics of degree 1 and above with the node. `COLOR_0` is what readers without the extension draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from lyra_core.errors import GaussiansError
from lyra_core.formats.glb import GlbWriter
from lyra_core.formats.mesh import GROUND_TO_GLTF, linear_rgba
from lyra_core.formats.parts import by_part
from lyra_core.formats.ply import require_finite
from lyra_core.geometry.rotation import matrix_to_quat_xyzw
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians

EXTENSION = "KHR_gaussian_splatting"
_POINTS = 0


def write_splat_glb(
    gaussians: Gaussians,
    file: str | Path,
    world_to_ground: Float[np.ndarray, "4 4"],
    facts: Mapping[str, str | float | bool] | None = None,
) -> None:
    """Write one node for each part: keyframes, backing, dome, under a root that turns them.

    Args:
        gaussians: world frame (OpenCV axes).
        file: usually ends with .glb.
        world_to_ground: a similarity to the ground frame (z up, y forward), as in the catalog.
        facts: about the world, for `asset.extras`.

    Raises:
        GaussiansError: nothing to write, or values that are not finite.
    """
    require_finite(gaussians)
    glb = GlbWriter()
    meshes: list[dict[str, object]] = []
    children: list[dict[str, object]] = []
    for name, part in by_part(gaussians).items():
        primitive = {
            "mode": _POINTS,
            "attributes": _attributes(glb, part),
            "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
        }
        children.append({"name": name, "mesh": len(meshes)})
        meshes.append({"name": name, "primitives": [primitive]})
    root = {"name": "splats", **_placement(world_to_ground), "children": list(range(1, 1 + len(children)))}
    document: dict[str, object] = {
        **({"asset": {"extras": dict(facts)}} if facts else {}),
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [root, *children],
        "meshes": meshes,
    }
    glb.write(document, file)


def _attributes(glb: GlbWriter, part: Gaussians) -> dict[str, int]:
    sh = part.sh.numpy()
    quats = torch.nn.functional.normalize(part.quats.double(), dim=1).roll(-1, 1)  # xyzw
    opacities = part.opacities.numpy().clip(0.0, 1.0)
    attributes = {
        "POSITION": glb.add(_floats(part.means.numpy()), has_bounds=True),
        "COLOR_0": glb.add(linear_rgba(0.5 + SH_C0 * sh[:, 0].astype(np.float64), opacities), is_normalized=True),
        f"{EXTENSION}:ROTATION": glb.add(_floats(quats.numpy())),
        f"{EXTENSION}:SCALE": glb.add(_floats(part.scales.numpy())),
        f"{EXTENSION}:OPACITY": glb.add(_floats(opacities)),
    }
    for degree in range(part.sh_degree + 1):
        for order in range(2 * degree + 1):
            name = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"
            attributes[name] = glb.add(_floats(sh[:, degree * degree + order]))
    return attributes


def _floats(array: np.ndarray) -> np.ndarray:
    return array.astype("<f4")


def _placement(world_to_ground: np.ndarray) -> dict[str, list[float]]:
    """Translation, rotation (xyzw) and scale of a node from the world frame to glTF's.

    Raises:
        GaussiansError: the matrix is no similarity that keeps left and right.
    """
    turned = GROUND_TO_GLTF @ world_to_ground[:3, :3]
    size = float(np.cbrt(np.linalg.det(turned)))
    if not size > 0 or not np.allclose(turned @ turned.T, size**2 * np.eye(3), atol=1e-6 * size**2):
        raise GaussiansError(
            f"a glTF node needs a rotation, one scale and a translation, found {world_to_ground.tolist()}; give a "
            "world_to_ground as in the catalog"
        )
    return {
        "translation": (GROUND_TO_GLTF @ world_to_ground[:3, 3] + 0.0).tolist(),
        "rotation": (matrix_to_quat_xyzw(torch.from_numpy(turned / size)) + 0.0).tolist(),
        "scale": [size] * 3,
    }
