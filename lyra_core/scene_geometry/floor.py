"""The floor of a world and which way is up, with evidence: most photographs show no floor that can be trusted.

A plane is looked for by random sampling (Fischler and Bolles 1981) among points whose normals point upwards, and is
believed only if it carries a share of everything seen, is hardly tilted against the camera, and is found again with
other random draws. It must also be seen near the camera, where a robot would stand: a distant sea is no floor.
Measured on nine sample photographs, this gate accepts the three that have a ground, and no other (docs/geometry.md).

Shape legend: n points, m hypotheses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lyra_core.scene_geometry.views import SurfacePoints

CAMERA_UP = (0.0, -1.0, 0.0)  # of the seed's camera, whose frame is the world frame
# The gate.
MIN_INLIERS, MAX_TILT_DEG, MAX_SPREAD_DEG = 0.25, 15.0, 3.0
# What a plane is made from and compared with.
NEAR_QUANTILE, NEAR_RATIO = 0.25, 4.0  # only points within this ratio of this quantile of distances: hills are no floor
SAMPLED_POINTS, HYPOTHESES = 5_000, 300
NORMAL_DEG, PLANE_DEG, AGREE_DEG = 55.0, 40.0, 40.0
INLIER_SHARE = 0.02  # of a point's distance from its camera
BELOW_SHARES = 3.0  # of the same: farther below than this, a point speaks against a floor
# A fit to all inliers is truer than the three points that had most by chance, so it may have a little fewer.
REFINEMENTS, KEPT_SCORE = 8, 0.97
MIN_POINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A plane under the camera; world units.

    Attributes:
        up: unit normal in the world frame.
        camera_height: distance of the first camera from the plane.
        inliers: share of the near points that lie on it and face as it does, 0 to 1.
        tilt_deg: angle between `up` and the first camera's up.
        spread_deg: root mean square of the angles to planes found with other random draws.
        rmse: root mean square distance of the points on it within `radius` heights of the camera, along `up`; NaN
            where there are hardly any.
    """

    up: tuple[float, float, float]
    camera_height: float
    inliers: float
    tilt_deg: float
    spread_deg: float
    rmse: float

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it is not to be trusted; empty if it is."""
        measured = (
            (self.inliers < MIN_INLIERS, f"the floor carries {self.inliers:.0%} of what is seen, wanted 25 %"),
            (self.tilt_deg > MAX_TILT_DEG, f"the floor is tilted by {self.tilt_deg:.1f} degrees, wanted at most 15"),
            (math.isnan(self.rmse), "no floor was seen near the camera"),
            (
                self.spread_deg > MAX_SPREAD_DEG,
                f"other random draws find floors {self.spread_deg:.1f} degrees apart, wanted at most 3",
            ),
        )
        return tuple(reason for is_wrong, reason in measured if is_wrong)

    @property
    def confidence(self) -> float:
        """0 to 1, 0.5 at the gate's inliers: a rank among trusted floors, no probability; 0 for others."""
        return 0.0 if self.doubts else min(1.0, 0.5 + 0.5 * (self.inliers - MIN_INLIERS) / (1.0 - MIN_INLIERS))


def find_floor(points: SurfacePoints, seeds: Sequence[int], radius: float) -> Floor | None:
    """The best plane under the first camera, which stands at the origin.

    Args:
        points: world frame.
        seeds: one for each independent search.
        radius: camera heights within which roughness is measured.

    Returns:
        None where no plane was found at all; else look at its doubts.
    """
    if len(points) < MIN_POINTS:
        return None
    near = points.ranges <= NEAR_RATIO * np.quantile(points.ranges, NEAR_QUANTILE)
    xyz, normals, ranges = points.xyz[near], points.normals[near], points.ranges[near]
    upwards = normals @ np.array(CAMERA_UP) > math.cos(math.radians(NORMAL_DEG))
    if int(upwards.sum()) < MIN_POINTS:
        return None
    floors = [
        plane
        for seed in seeds
        if (plane := _search(xyz, normals, ranges, upwards, np.random.default_rng(seed))) is not None
    ]
    if not floors:
        return None
    normal, offset, _ = max(floors, key=lambda plane: plane[2])
    on_it = _inliers(xyz, normals, ranges, normal[None], np.array([offset]))[0]
    distance = xyz[on_it & (np.linalg.norm(xyz, axis=1) < radius * offset)] @ normal + offset
    angles = [_angle_deg(normal, plane[0]) for plane in floors]
    return Floor(
        up=(float(normal[0]), float(normal[1]), float(normal[2])),
        camera_height=float(offset),
        inliers=float(on_it.mean()),
        tilt_deg=_angle_deg(normal, np.array(CAMERA_UP)),
        spread_deg=math.sqrt(sum(angle**2 for angle in angles) / len(angles)) if len(floors) == len(seeds) else 180.0,
        rmse=float(np.sqrt(np.mean(distance**2))) if len(distance) >= MIN_POINTS else math.nan,
    )


# A plane is (unit normal, offset, score): points with normal . x + offset = 0; the origin lies `offset` above it.
_Plane = tuple[np.ndarray, float, float]


def _search(
    xyz: np.ndarray, normals: np.ndarray, ranges: np.ndarray, upwards: np.ndarray, rng: np.random.Generator
) -> _Plane | None:
    chosen = rng.permutation(len(xyz))[:SAMPLED_POINTS]
    # Half the time in single precision; a plane is good to a thousandth anyway.
    xyz, normals, ranges = (array[chosen].astype(np.float32) for array in (xyz, normals, ranges))
    candidates = xyz[upwards[chosen]]
    if len(candidates) < 3:
        return None
    corners = candidates[rng.integers(len(candidates), size=(HYPOTHESES, 3))]
    up = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(up, axis=1)
    up = up[length > 0] / length[length > 0, None]
    up *= np.where(up @ np.array(CAMERA_UP) < 0, -1.0, 1.0)[:, None]
    offset = -np.einsum("mi,mi->m", up, corners[length > 0, 0])
    is_allowed = (up @ np.array(CAMERA_UP) > math.cos(math.radians(PLANE_DEG))) & (offset > 0)
    up, offset = up[is_allowed], offset[is_allowed]
    if len(up) == 0:
        return None
    scores = _scores(xyz, normals, ranges, up, offset)
    best = int(scores.argmax())
    plane: _Plane = (up[best], float(offset[best]), float(scores[best]))
    for _ in range(REFINEMENTS):
        refined = _refined(xyz, normals, ranges, plane)
        if refined is None:
            break
        plane = refined
    return plane


def _refined(xyz: np.ndarray, normals: np.ndarray, ranges: np.ndarray, plane: _Plane) -> _Plane | None:
    """The least-squares plane through the inliers, errors counted in shares of the distance."""
    on_it = _inliers(xyz, normals, ranges, plane[0][None], np.array([plane[1]]))[0]
    if int(on_it.sum()) < 3:
        return None
    weight, held = 1.0 / ranges[on_it].astype(np.float64) ** 2, xyz[on_it].astype(np.float64)
    center = (weight[:, None] * held).sum(0) / weight.sum()
    off = (held - center) * np.sqrt(weight)[:, None]
    _, axes = np.linalg.eigh(off.T @ off)
    up = axes[:, 0] * (1.0 if axes[:, 0] @ np.array(CAMERA_UP) > 0 else -1.0)
    offset = -float(up @ center)
    if offset <= 0:
        return None
    score = float(_scores(xyz, normals, ranges, up[None], np.array([offset]))[0])
    return (up, offset, score) if score >= KEPT_SCORE * plane[2] else None


def _scores(
    xyz: np.ndarray, normals: np.ndarray, ranges: np.ndarray, up: np.ndarray, offset: np.ndarray
) -> Float[np.ndarray, " m"]:
    """Share of points on each plane less the share clearly below it."""
    scores = np.empty(len(up))
    for i in range(0, len(up), 50):
        part = slice(i, i + 50)
        on_it = _inliers(xyz, normals, ranges, up[part], offset[part])
        height = up[part].astype(xyz.dtype) @ xyz.T + offset[part, None].astype(xyz.dtype)
        below = height < -BELOW_SHARES * INLIER_SHARE * ranges
        scores[part] = on_it.mean(1) - below.mean(1)
    return scores


def _inliers(
    xyz: np.ndarray, normals: np.ndarray, ranges: np.ndarray, up: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Which points lie on each plane and face as it does. [m n]"""
    up, offset = up.astype(xyz.dtype), offset.astype(xyz.dtype)
    near = np.abs(up @ xyz.T + offset[:, None]) < INLIER_SHARE * ranges
    return near & (up @ normals.T > math.cos(math.radians(AGREE_DEG)))


def _angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return math.degrees(math.acos(float(np.clip(a @ b, -1.0, 1.0))))
