"""Whether the frames were taken where the cameras say: measures it, and decides which cameras Gaussians are made with.

A generated video follows its requested cameras only roughly; small departures are the estimator's noise, and building
on the request keeps the world where everybody expects it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import ReconstructionError
from lyra_core.geometry.alignment import pose_residual
from lyra_core.values import CameraPath

Choice = Literal["auto", "requested", "recovered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Cameras to build on.

    Attributes:
        cameras: one a keyframe.
        choice: "requested" or "recovered".
        residual_deg: median rotation between requested and recovered cameras; None if none were recovered.
        residual_percent: median distance of their centres in percent of the path's length, likewise.
    """

    cameras: CameraPath
    choice: str
    residual_deg: float | None = None
    residual_percent: float | None = None

    def is_beyond(self, limit: tuple[float, float]) -> bool:
        """Whether either residual exceeds its limit (degrees, percent)."""
        if self.residual_deg is None or self.residual_percent is None:
            return False
        return self.residual_deg > limit[0] or self.residual_percent > limit[1]


def choose_cameras(
    requested: CameraPath, recovered: Float[Tensor, "t 4 4"] | None, choice: Choice, gate: tuple[float, float]
) -> Stand:
    """Requested cameras unless the frames depart from them beyond the gate, or the choice is made.

    Args:
        requested: one a keyframe.
        recovered: found in the frames and brought to the requested ones, or None. [t 4 4]
        choice: "auto" lets the gate decide.
        gate: degrees and percent of the path's length, medians over the path.

    Raises:
        ReconstructionError: recovered cameras were asked for and there are none.
    """
    if recovered is None:
        if choice == "recovered":
            raise ReconstructionError(
                'cameras="recovered" needs a lifter that finds cameras, and this one finds none; use "auto"'
            )
        return Stand(cameras=requested, choice="requested")
    degrees, percent = pose_residual(requested.world_to_cam, recovered)
    measured = Stand(cameras=requested, choice="requested", residual_deg=degrees, residual_percent=percent)
    if choice == "recovered" or (choice == "auto" and measured.is_beyond(gate)):
        return replace(measured, cameras=replace(requested, world_to_cam=recovered), choice="recovered")
    return measured
