"""Pinhole cameras and rotations as small pure functions in float64.

Legend: n points, h w pixels. Conventions (docs/conventions.md): OpenCV camera frame (x right, y
down, z forward), world_to_cam 4x4, metres, quaternions wxyz, pixel centres at +0.5.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.rotation import invert_rigid, matrix_to_quat, rigid, unit_quat_to_matrix

# Of photographs that do not say, and of the look through a network that was trained without cameras.
DEFAULT_HFOV_DEG = 55.0
# Directions closer than this to parallel leave the roll of a look-at undefined.
PARALLEL_EPS = 1e-9


def intrinsics_from_hfov(hfov_deg: float, image_height: int, image_width: int) -> Float[Tensor, "3 3"]:
    """Square pixels, principal point at the image's centre, horizontal field of view in degrees.

    Raises:
        CameraPathError: a field of view outside (0, 180) degrees.
    """
    if not 0 < hfov_deg < 180:
        raise CameraPathError(f"a horizontal field of view lies between 0 and 180 degrees, found {hfov_deg}")
    focal = image_width / 2 / math.tan(math.radians(hfov_deg) / 2)
    return torch.tensor(
        [[focal, 0.0, image_width / 2], [0.0, focal, image_height / 2], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )


def pixel_centers(image_height: int, image_width: int) -> Float[Tensor, "h w 2"]:
    """Continuous (u, v) of each pixel's centre: column + 0.5, row + 0.5."""
    v, u = torch.meshgrid(
        torch.arange(image_height, dtype=torch.float64) + 0.5,
        torch.arange(image_width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    return torch.stack([u, v], -1)


def project(
    points_m: Float[Tensor, "... 3"],
    world_to_cam: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
) -> tuple[Float[Tensor, "... 2"], Float[Tensor, " ..."]]:
    """Continuous pixel coordinates and z-depth (metres) of world points.

    Points at or behind the camera plane (depth <= 0) get coordinates of no meaning: test the depth.
    """
    points = points_m.to(torch.float64)
    cam = points @ world_to_cam[:3, :3].to(torch.float64).mT + world_to_cam[:3, 3].to(torch.float64)
    depth = cam[..., 2]
    safe = torch.where(depth.abs() < 1e-12, torch.full_like(depth, 1e-12), depth)
    image = (cam / safe[..., None]) @ intrinsics.to(torch.float64).mT
    return image[..., :2], depth


def unproject(
    depth_m: Float[Tensor, "h w"],
    world_to_cam: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
) -> Float[Tensor, "h w 3"]:
    """World points, metres, of a z-depth map seen at pixel centres (+0.5)."""
    height, width = depth_m.shape
    pixels = pixel_centers(height, width)
    homogeneous = torch.cat([pixels, torch.ones(height, width, 1, dtype=torch.float64)], -1)
    rays = homogeneous @ torch.linalg.inv(intrinsics.to(torch.float64)).mT
    cam_to_world = invert_rigid(world_to_cam.to(torch.float64))
    cam = rays * depth_m.to(torch.float64)[..., None]
    return cam @ cam_to_world[:3, :3].mT + cam_to_world[:3, 3]


def look_at(
    position_m: Float[Tensor, 3],
    target_m: Float[Tensor, 3],
    down: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> Float[Tensor, "4 4"]:
    """world_to_cam of a camera at a position that looks at a target, its y axis as near `down` as
    can be.

    Looking straight along `down` leaves the roll free: the world's x axis then stays to the right.

    Raises:
        CameraPathError: the target is the position.
    """
    position = position_m.to(torch.float64)
    forward = target_m.to(torch.float64) - position
    distance = forward.norm()
    if not float(distance) > 0:
        raise CameraPathError(f"a camera cannot look at its own position {position.tolist()}; move the target")
    forward = forward / distance
    down_axis = torch.tensor(down, dtype=torch.float64)
    right = torch.linalg.cross(down_axis, forward)
    if float(right.norm()) < PARALLEL_EPS:
        x_axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        right = x_axis - (x_axis @ forward) * forward
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    return rigid(rotation, -rotation @ position)


def compose(second: Float[Tensor, "... 4 4"], first: Float[Tensor, "... 4 4"]) -> Float[Tensor, "... 4 4"]:
    """The transform that applies `first`, then `second`; leading dimensions broadcast."""
    return second.to(torch.float64) @ first.to(torch.float64)


def rotation_about_axis(axis: tuple[float, float, float], angle_rad: Float[Tensor, " ..."]) -> Float[Tensor, "... 3 3"]:
    """Right-handed rotations about an axis through the origin (Rodrigues' formula)."""
    x, y, z = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    angle = angle_rad.to(torch.float64)[..., None, None]
    return torch.eye(3, dtype=torch.float64) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def slerp(
    start: Float[Tensor, "... 4"], end: Float[Tensor, "... 4"], fraction: Float[Tensor, " ..."]
) -> Float[Tensor, "... 4"]:
    """Unit quaternions on the shorter great arc, at constant angular speed (Shoemake 1985)."""
    a = torch.nn.functional.normalize(start.to(torch.float64), dim=-1)
    b = torch.nn.functional.normalize(end.to(torch.float64), dim=-1)
    b = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
    # atan2 of the chord's halves keeps small angles exact where acos of the dot product loses half
    # the digits.
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    t = fraction.to(torch.float64)[..., None]
    near = angle < 1e-8
    sine = torch.where(near, torch.ones_like(angle), angle.sin())
    wa = torch.where(near, 1 - t, ((1 - t) * angle).sin() / sine)
    wb = torch.where(near, t.expand_as(angle), (t * angle).sin() / sine)
    return torch.nn.functional.normalize(wa * a + wb * b, dim=-1)


def slerp_rotations(
    start: Float[Tensor, "... 3 3"], end: Float[Tensor, "... 3 3"], fraction: Float[Tensor, " ..."]
) -> Float[Tensor, "... 3 3"]:
    """Rotation matrices on the shorter arc between two; see slerp."""
    return unit_quat_to_matrix(
        slerp(matrix_to_quat(start.to(torch.float64)), matrix_to_quat(end.to(torch.float64)), fraction)
    )
