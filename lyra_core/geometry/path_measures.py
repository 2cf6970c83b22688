"""How far a camera path goes and how much it turns."""

from __future__ import annotations

import math

from lyra_core.values import CameraPath


def path_length_m(cameras: CameraPath) -> float:
    """Metres the camera centre travels."""
    return float(cameras.centers_m.diff(dim=0).norm(dim=1).sum())


def total_rotation_deg(cameras: CameraPath) -> float:
    """Sum of the angles between successive frames, degrees."""
    rotation = cameras.world_to_cam[:, :3, :3]
    cosine = ((rotation[1:] @ rotation[:-1].mT).diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return math.degrees(float(cosine.clamp(-1, 1).acos().sum()))
