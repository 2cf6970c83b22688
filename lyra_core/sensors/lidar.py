"""What a rotating laser scanner is like."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lyra_core.errors import CameraPathError


@dataclass(frozen=True, slots=True, kw_only=True)
class LidarModel:
    """What a scanner is like.

    Attributes:
        elevations_deg: of its beams above the horizontal plane of the sensor, degrees.
        columns: shots of a beam in one turn.
        horizontal_fov_deg: width of the turn about the forward direction, degrees.
        max_range: returns from further away are lost, world units; metres where the world is metric.
        beam_rad: divergence of a beam, radians.
    """

    elevations_deg: tuple[float, ...] = tuple(15.0 - i for i in range(32))
    columns: int = 1024
    horizontal_fov_deg: float = 360.0
    max_range: float = 100.0
    beam_rad: float = 0.003

    def __post_init__(self) -> None:
        steep = [angle for angle in self.elevations_deg if not -90 < angle < 90]
        if not self.elevations_deg or steep:
            raise CameraPathError(f"a scanner needs beams between -90 and 90 degrees, found {steep or 'none'}")
        if self.columns < 1 or not 0 < self.horizontal_fov_deg <= 360:
            raise CameraPathError(
                f"a turn has at least one column and at most 360 degrees, found {self.columns} columns and "
                f"{self.horizontal_fov_deg} degrees"
            )
        if not (math.isfinite(self.max_range) and self.max_range > 0 and self.beam_rad > 0):
            raise CameraPathError(
                f"range and beam must be positive and finite, found {self.max_range} and {self.beam_rad}"
            )
