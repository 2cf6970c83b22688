"""How long a world unit is, and who says so: metres are claimed only where something measured them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lyra_core.errors import SeedError
from lyra_core.scene_geometry.floor import Floor
from lyra_core.scene_geometry.views import DepthViews

Source = Literal["camera_height", "center_distance", "depth_model", "relative"]
EYE_LEVEL_M = 1.55  # people hold cameras at 1.4 to 1.7 m
# A floor that would need a larger correction says that the photograph was not taken standing, and then it says nothing.
PRIOR_RANGE = (0.5, 2.0)
# Ranks, not probabilities: what a person stated, what a network trained on depth in metres says, what a person's eye
# level makes likely, and nothing at all.
CONFIDENCE: dict[str, float] = {"camera_height": 0.9, "center_distance": 0.9, "depth_model": 0.5}
PRIOR_CONFIDENCE, NO_CONFIDENCE = 0.3, 0.1
CENTER_SHARE = 0.05  # of width and height: the window whose median depth is the distance at the centre


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenScale:
    """What a person knows of a photograph; at most one of the two is used, the height first.

    Attributes:
        camera_height_m: height of the camera above the ground, metres.
        center_distance_m: distance, along the viewing direction, of what the photograph's centre shows, metres.
    """

    camera_height_m: float | None = None
    center_distance_m: float | None = None

    def __post_init__(self) -> None:
        for name in ("camera_height_m", "center_distance_m"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SeedError(f"{name} must be a positive number of metres, found {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The length of a world unit.

    Attributes:
        meters_per_unit: where something measured it, else None.
        source: what did.
        confidence: 0 to 1, see CONFIDENCE.
        prior: metres per unit if the camera was held at eye level, where a trusted floor says how high it was in
            units and the answer is within PRIOR_RANGE; never put in the place of a measurement.
    """

    meters_per_unit: float | None
    source: Source
    confidence: float
    prior: float | None

    @property
    def best(self) -> float | None:
        """The measured length, else the likely one, else None: what a simulation is built with."""
        return self.meters_per_unit if self.meters_per_unit is not None else self.prior


def find_scale(
    floor: Floor | None, views: DepthViews, *, is_metric_model: bool, given: GivenScale | None = None
) -> Scale:
    """The scale of a world.

    Args:
        floor: a trusted one, or None.
        views: drawn frames, the first of them the photograph's.
        is_metric_model: the depth of the world comes from a network that measures metres.
        given: what a person knows.
    """
    given = given or GivenScale()
    prior = EYE_LEVEL_M / floor.camera_height if floor is not None else None
    if prior is not None and not PRIOR_RANGE[0] <= prior <= PRIOR_RANGE[1]:
        prior = None
    center = _center_depth(views)
    measured: tuple[float, Source] | None = None
    if given.camera_height_m is not None and floor is not None:
        measured = given.camera_height_m / floor.camera_height, "camera_height"
    elif given.center_distance_m is not None and center is not None:
        measured = given.center_distance_m / center, "center_distance"
    elif is_metric_model:
        measured = 1.0, "depth_model"
    if measured is not None:
        return Scale(meters_per_unit=measured[0], source=measured[1], confidence=CONFIDENCE[measured[1]], prior=prior)
    confidence = NO_CONFIDENCE if prior is None else PRIOR_CONFIDENCE
    return Scale(meters_per_unit=None, source="relative", confidence=confidence, prior=prior)


def _center_depth(views: DepthViews) -> float | None:
    """Median z-depth around the centre of the first frame, world units; None where nothing is known there."""
    height, width = views.depth.shape[1:]
    down, right = max(1, round(CENTER_SHARE * height / 2)), max(1, round(CENTER_SHARE * width / 2))
    window = views.depth[0, height // 2 - down : height // 2 + down, width // 2 - right : width // 2 + right]
    known = window[window > 0]
    return float(known.median()) if known.numel() else None
