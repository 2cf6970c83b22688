"""Cameras as files list them, checked: finite, rigid, with lenses that a pinhole can have. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.errors import CameraPathError

# How far a rotation may be from orthonormal: files of float32, or with six decimals, are nearer.
RIGIDITY_TOLERANCE = 1e-4
MAX_CAMERAS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraList:
    """Cameras as a file lists them, checked: finite, rigid, of the shapes said here.

    Attributes:
        world_to_cam: OpenCV, metres. [n 4 4] float64
        intrinsics: pixels of an image of image_height x image_width, or None where the file has none. [n 3 3] float64
        image_height: rows of the image the intrinsics belong to; 0 without intrinsics.
        image_width: columns of it.
        fov_deg: fields of view where the file gives those instead, for an image of any size. [n] float64
        fov_axis: "horizontal" or "vertical".
        is_spread: the cameras are spread evenly over all frames of a video; otherwise there is one a frame.
    """

    world_to_cam: np.ndarray
    intrinsics: np.ndarray | None = None
    image_height: int = 0
    image_width: int = 0
    fov_deg: np.ndarray | None = None
    fov_axis: str = "horizontal"
    is_spread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPose:
    """A pose to pass through, in the seed camera's frame; at most one of look_at and quaternion (wxyz) is given."""

    position_m: tuple[float, ...]
    look_at_m: tuple[float, ...] | None = None
    quaternion: tuple[float, ...] | None = None
    hfov_deg: float | None = None


def checked_cameras(cameras: CameraList, origin: str) -> CameraList:
    """The cameras, if each is one.

    Raises:
        CameraPathError: too many, not finite, scaled or otherwise not rigid, no focal length, or an impossible size.
    """
    _require_rigid(cameras.world_to_cam, origin)
    if cameras.intrinsics is not None:
        _require_lenses(cameras, origin)
    if cameras.fov_deg is not None:
        bad = ~((cameras.fov_deg > 0) & (cameras.fov_deg < 180))
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise CameraPathError(
                f"{origin}: a field of view lies between 0 and 180 degrees, camera {first} has "
                f"{cameras.fov_deg[first]:.4g}"
            )
    return cameras


def _require_rigid(poses: np.ndarray, origin: str) -> None:
    if not 1 <= len(poses) <= MAX_CAMERAS:
        raise CameraPathError(f"{origin} must hold 1 to {MAX_CAMERAS} cameras, found {len(poses)}")
    _require_finite("w2c", poses, origin)
    rotation = poses[:, :3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        gram = rotation @ rotation.transpose(0, 2, 1)
        error = np.nan_to_num(np.abs(gram - np.eye(3)).max((1, 2)), nan=np.inf)
    last_row = np.abs(poses[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(1)
    wrong = (error > RIGIDITY_TOLERANCE) | (last_row > RIGIDITY_TOLERANCE)
    wrong |= np.linalg.det(np.where(wrong[:, None, None], np.eye(3), rotation)) < 0
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    scale = float(np.sqrt(gram[first, 0, 0]))
    deviates = f"frame {first} deviates by {error[first]:.2g}"
    if 0 < scale < np.inf and np.abs(gram[first] / scale**2 - np.eye(3)).max() < RIGIDITY_TOLERANCE < error[first]:
        deviates = f"frame {first} has a rotation scaled by {scale:.4g}: divide its first three columns by that"
    elif last_row[first] > RIGIDITY_TOLERANCE:
        deviates = f"the last row of frame {first} is {poses[first, 3].tolist()}; was the matrix stored by columns?"
    raise CameraPathError(
        f"{origin}: camera poses must be rigid (orthonormal rotation of determinant +1, last row 0 0 0 1); {deviates}"
    )


def _require_lenses(cameras: CameraList, origin: str) -> None:
    assert cameras.intrinsics is not None  # noqa: S101  the caller looked
    height, width = cameras.image_height, cameras.image_width
    if height < 1 or width < 1:
        raise CameraPathError(f"{origin}: the image size must be positive, found {width}x{height}")
    _require_finite("intrinsics", cameras.intrinsics, origin)
    focal = cameras.intrinsics[:, [0, 1], [0, 1]]
    point = cameras.intrinsics[:, :2, 2]
    good = (focal > 0).all(1) & (point >= 0).all(1) & (point <= [width, height]).all(1)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise CameraPathError(
            f"{origin}: intrinsics need positive focal lengths and a principal point inside the {width}x{height} "
            f"image; frame {first} has fx={focal[first, 0]:.4g} fy={focal[first, 1]:.4g} cx={point[first, 0]:.4g} "
            f"cy={point[first, 1]:.4g}"
        )


def _require_finite(name: str, values: np.ndarray, origin: str) -> None:
    bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        raise CameraPathError(f"{origin}: {name} of frames {np.flatnonzero(bad)[:8].tolist()} is NaN or infinite")
