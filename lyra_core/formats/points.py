"""Plain coloured points of a world: what structure-from-motion tools and trainers start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from lyra_core.replacing import replacing
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians, Part

MAX_POINTS = 50_000


def surface_points(
    gaussians: Gaussians, max_points: int = MAX_POINTS
) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """Centres, in the world frame and unit, and sRGB colours of the Gaussians that key frames show, evenly thinned.

    Backing and dome are left out; Gaussians whose parts are not told all count.
    """
    surface = gaussians.of_parts(Part.KEYFRAME)
    if len(surface) == 0 or max_points < 1:
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    sample = surface[:: max(1, -(-len(surface) // max_points))].to("cpu")
    colors = ((0.5 + SH_C0 * sample.sh[:, 0]).clamp(0, 1) * 255).round().byte()
    return sample.means.double().numpy(), colors.numpy()


def write_points_ply(gaussians: Gaussians, file: str | Path, max_points: int = MAX_POINTS) -> None:
    """Write the surface points as a binary PLY of x, y, z, red, green, blue, as nerfstudio's `ply_file_path` wants."""
    means, colors = surface_points(gaussians, max_points)
    rows = np.empty(len(means), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = means, colors
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    with replacing(file) as temporary:
        temporary.write_bytes(("\n".join([*header, "end_header"]) + "\n").encode("ascii") + rows.tobytes())
