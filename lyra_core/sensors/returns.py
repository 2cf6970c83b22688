"""Returns of a laser scanner as a .ply of points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lyra_core.replacing import replacing
from lyra_core.sensors.cast import Cast


def write_lidar_ply(turns: Sequence[Cast], file: str | Path, max_range: float) -> int:
    """Write the returns of some turns in the world's frame: x, y, z, red, green, blue, range, ring, turn.

    Args:
        turns: captures of `lidar_rays`.
        file: a binary PLY; replaced if it exists.
        max_range: returns from further away are left out, world units.

    Returns:
        the number of points.
    """
    parts = []
    for number, turn in enumerate(turns):
        hit = ((turn.range > 0) & (turn.range <= max_range)).numpy()
        part = np.empty(
            int(hit.sum()),
            [("xyz", "<f4", 3), ("rgb", "u1", 3), ("range", "<f4"), ("ring", "<u2"), ("turn", "<u4")],
        )
        part["xyz"] = turn.world_points().numpy()[hit]
        part["rgb"] = (turn.color * 255).round().to(torch.uint8).numpy()[hit]
        part["range"] = turn.range.numpy()[hit]
        part["ring"], part["turn"] = hit.nonzero()[0], number
        parts.append(part)
    rows = np.concatenate(parts)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header += ["property float range", "property ushort ring", "property uint turn"]
    with replacing(file) as temporary:
        temporary.write_bytes(("\n".join([*header, "end_header"]) + "\n").encode("ascii") + rows.tobytes())
    return len(rows)
