"""Rays of a sensor in its own frame: pinhole and fisheye cameras, and a rotating laser scanner.

A sensor's frame is that of an OpenCV camera: x right, y down, z forward. All rays of one capture begin at its origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import pixel_centers
from lyra_core.sensors.lidar import LidarModel

_NEWTON_STEPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rays:
    """A grid of rays from one point.

    Attributes:
        directions: unit vectors in the sensor's frame; zeros where the sensor has no pixel, such as outside of a
            fisheye's image circle. [h w 3] float64
        pitch_rad: angle between neighbouring rays, which splats are blurred by. radians
    """

    directions: Float[Tensor, "h w 3"]
    pitch_rad: float

    def __post_init__(self) -> None:
        length = self.directions.norm(dim=-1)
        whole = ((length - 1).abs() < 1e-6) | (length == 0)
        if not bool(whole.all()) or not bool((length > 0).any()):
            raise CameraPathError(
                f"rays need unit directions, zeros where a sensor has no pixel; found lengths from {length.min():.3g} "
                f"to {length.max():.3g}; normalise them"
            )
        if not (math.isfinite(self.pitch_rad) and 0 < self.pitch_rad < 1):
            raise CameraPathError(f"neighbouring rays lie 0 to 1 radians apart, found {self.pitch_rad}")


def pinhole_rays(intrinsics: Float[Tensor, "3 3"], image_height: int, image_width: int) -> Rays:
    """Rays through the pixel centres (+0.5) of a pinhole camera.

    Args:
        intrinsics: pixels. [3 3]
        image_height: rows.
        image_width: columns.
    """
    K = intrinsics.to(torch.float64)
    plane = (pixel_centers(image_height, image_width) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    rays = torch.cat([plane, torch.ones(image_height, image_width, 1, dtype=torch.float64)], -1)
    return Rays(
        directions=torch.nn.functional.normalize(rays, dim=-1), pitch_rad=1.0 / math.sqrt(float(K[0, 0] * K[1, 1]))
    )


def fisheye_rays(
    intrinsics: Float[Tensor, "3 3"],
    image_height: int,
    image_width: int,
    *,
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    max_angle_deg: float = 100.0,
) -> Rays:
    """Rays through the pixel centres of a fisheye camera of OpenCV's model (Kannala and Brandt 2006).

    A pixel lies at the radius f * (a + k1 a^3 + k2 a^5 + k3 a^7 + k4 a^9) from the principal point, a being the angle
    between its ray and the forward axis; with all k zero that is the equidistant fisheye.

    Args:
        intrinsics: pixels. [3 3]
        image_height: rows.
        image_width: columns.
        distortion: k1 to k4.
        max_angle_deg: rays further from the forward axis are none, degrees.

    Raises:
        CameraPathError: an angle outside (0, 180], or coefficients whose radius does not grow up to that angle.
    """
    if not 0 < max_angle_deg <= 180:
        raise CameraPathError(f"a fisheye sees up to an angle in (0, 180] degrees, found {max_angle_deg}")
    K, limit = intrinsics.to(torch.float64), math.radians(max_angle_deg)
    steps = torch.linspace(0.0, limit, 1000, dtype=torch.float64)
    if not bool((_slope(steps, distortion) > 0).all()):
        raise CameraPathError(
            f"the radius of a fisheye must grow with the angle up to {max_angle_deg} degrees; it does not with "
            f"k1 to k4 = {distortion}; lower max_angle_deg"
        )
    plane = (pixel_centers(image_height, image_width) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    radius = plane.norm(dim=-1)
    angle = radius.clamp(max=limit)
    for _ in range(_NEWTON_STEPS):
        angle = (angle - (_radius(angle, distortion) - radius) / _slope(angle, distortion)).clamp(0.0, limit)
    seen = radius <= float(_radius(torch.tensor(limit, dtype=torch.float64), distortion))
    side = torch.where(radius > 0, angle.sin() / radius.clamp_min(1e-12), 1.0)[..., None] * plane
    rays = torch.cat([side, angle.cos()[..., None]], -1)
    rays = torch.nn.functional.normalize(rays, dim=-1) * seen[..., None]
    return Rays(directions=rays, pitch_rad=1.0 / math.sqrt(float(K[0, 0] * K[1, 1])))


def lidar_rays(model: LidarModel) -> Rays:
    """One turn of a scanner: a row for each beam from the highest down, a column for each azimuth.

    Azimuth grows to the right about the downward axis; the middle column looks forward. [beams columns]
    """
    down = -torch.deg2rad(torch.tensor(sorted(model.elevations_deg, reverse=True), dtype=torch.float64))[:, None]
    half = math.radians(model.horizontal_fov_deg) / 2
    columns = (torch.arange(model.columns, dtype=torch.float64) + 0.5) / model.columns
    azimuth = (columns * 2 - 1)[None, :] * half
    rays = torch.stack(
        [
            azimuth.sin() * down.cos(),
            down.sin().expand(len(down), model.columns),
            azimuth.cos() * down.cos(),
        ],
        -1,
    )
    return Rays(directions=rays, pitch_rad=model.beam_rad)


def _radius(angle: Tensor, k: tuple[float, float, float, float]) -> Tensor:
    square = angle * angle
    return angle * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))


def _slope(angle: Tensor, k: tuple[float, float, float, float]) -> Tensor:
    square = angle * angle
    return 1 + square * (3 * k[0] + square * (5 * k[1] + square * (7 * k[2] + square * 9 * k[3])))
