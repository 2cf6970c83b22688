"""The box that the surfaces of a world fill, with and without the outermost Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lyra_core.values import Gaussians, Part

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Per axis, in metres of the Gaussians' frame.

    Attributes:
        least, greatest: of all centres.
        p01, p99: 1st and 99th percentile, which a few stray Gaussians do not move.
    """

    least: Point
    greatest: Point
    p01: Point
    p99: Point


def extent(gaussians: Gaussians) -> Extent:
    """The extent of the centres of what key frames show: backing and dome say nothing about a world's size.

    All centres count where a world has nothing else.
    """
    surface = gaussians.of_parts(Part.KEYFRAME)
    means = surface.means if len(surface) else gaussians.means
    # kthvalue per axis rather than quantile, which refuses more than 16 million values.
    low, high = max(1, len(means) // 100), max(1, len(means) - len(means) // 100)
    return Extent(
        least=_point(means.amin(0)),
        greatest=_point(means.amax(0)),
        p01=_point(means.kthvalue(low, dim=0).values),
        p99=_point(means.kthvalue(high, dim=0).values),
    )


def _point(xyz: Tensor) -> Point:
    x, y, z = xyz.tolist()
    return x, y, z
