"""Camera paths from files: a pose for every frame, a path to spread over all frames, or a few key poses.

`trajectory.npz` holds `w2c` [t 4 4] (OpenCV, metres), `intrinsics` [t 3 3] in pixels of an image of
`image_height` x `image_width`: the layout of the Lyra 2 reference implementation. `camera_files` lists the others.

Key poses are JSON, a list or {"key_poses": [...]}; each is an object with

    position    [x, y, z] in metres, in the seed camera's frame (x right, y down, z forward)
    look_at     [x, y, z], a point to look at (its image stays upright), or
    quaternion  [w, x, y, z], camera to world; with neither, the first camera's orientation
    hfov        horizontal field of view in degrees; optional, all or none; default: the seed's

    [{"position": [0, 0, 0], "look_at": [0, 0, 4]},
     {"position": [1, 0, 1], "look_at": [0, 0, 4]}]

The path runs smoothly through all of them at constant speed, turning counted as moving.
Every path is re-expressed so that its first camera is the identity: the world is the seed camera's
frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import compose, intrinsics_from_hfov, look_at, slerp_rotations
from lyra_core.geometry.camera_files import CameraList, KeyPose, read_camera_bytes, read_cameras
from lyra_core.geometry.key_poses import KeyPoses, interpolate_key_poses
from lyra_core.geometry.requests import num_chunks, require_frames
from lyra_core.geometry.rotation import invert_rigid, rigid, unit_quat_to_matrix
from lyra_core.replacing import replacing
from lyra_core.values import CameraPath


def load_trajectory(
    source: str | Path | bytes,
    *,
    num_frames: int | None = None,
    intrinsics: Float[Tensor, "3 3"] | None = None,
    image_height: int | None = None,
    image_width: int | None = None,
    any_count: bool = False,
) -> CameraPath:
    """Read a camera path, its first camera made the identity.

    Args:
        source: a file's path, or its bytes.
        num_frames: 1 + 80 k. A file with a camera a frame is cut to it; key poses and camera_path.json are spread
            over it and need it.
        intrinsics: the seed's; used by files without a field of view. [3 3]
        image_height: rows of the image those belong to; files without intrinsics need it, others are resized to it.
        image_width: columns of it.
        any_count: allow any positive number of frames, for previews.

    Raises:
        CameraPathError: unreadable, pickled, NaN, non-rigid, wrong shapes, a count that is not 1 +
            80 k, malformed key poses.
    """
    data = source if isinstance(source, bytes) else read_camera_bytes(source)
    origin = "trajectory" if isinstance(source, bytes) else str(source)
    name = "custom" if isinstance(source, bytes) else Path(source).stem
    cameras = read_cameras(data, origin)
    size = None if image_height is None or image_width is None else (image_height, image_width)
    if isinstance(cameras, list):
        count = _count(num_frames, any_count, origin)
        world_to_cam, lenses, lens_size = _from_key_poses(cameras, origin, count, intrinsics, size)
    else:
        asked = num_frames if cameras.is_spread or num_frames is not None else len(cameras.world_to_cam)
        count = _count(asked, any_count, origin)
        poses = torch.from_numpy(cameras.world_to_cam)
        lenses, lens_size = _lenses(cameras, origin, intrinsics, size)
        if cameras.is_spread:
            world_to_cam, lenses = _spread(poses, lenses, count)
        else:
            require_frames(len(poses), count, origin)
            world_to_cam, lenses = poses[:count], lenses[:count]
    try:
        path = CameraPath(
            world_to_cam=world_to_cam,
            intrinsics=lenses,
            image_height=lens_size[0],
            image_width=lens_size[1],
            name=name,
        )
    except CameraPathError as error:
        raise CameraPathError(f"{origin}: {error}") from error
    path = relative_to_first(path)
    return path if size is None else path.resized(*size)


def save_trajectory(path: CameraPath, file: str | Path) -> None:
    """Write trajectory.npz, whole or not at all; `load_trajectory` reads it back bit for bit."""
    with replacing(Path(file).with_suffix(".npz")) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            w2c=path.world_to_cam.numpy(),
            intrinsics=path.intrinsics.numpy(),
            image_height=np.int64(path.image_height),
            image_width=np.int64(path.image_width),
        )


def relative_to_first(path: CameraPath) -> CameraPath:
    """The same path in the frame of its first camera, whose pose becomes exactly the identity."""
    first = path.world_to_cam[0]
    if torch.equal(first, torch.eye(4, dtype=torch.float64)):
        return path
    moved = compose(path.world_to_cam, invert_rigid(first))
    moved[0] = torch.eye(4, dtype=torch.float64)
    return CameraPath(
        world_to_cam=moved,
        intrinsics=path.intrinsics,
        image_height=path.image_height,
        image_width=path.image_width,
        name=path.name,
    )


def _count(num_frames: int | None, any_count: bool, origin: str) -> int:
    if num_frames is None:
        raise CameraPathError(f"{origin} is spread over a video: say over how many frames (num_frames)")
    if not any_count:
        num_chunks(num_frames)
    elif num_frames < 1:
        raise CameraPathError(f"a camera path needs at least one frame, found {num_frames}")
    return num_frames


def _lenses(
    cameras: CameraList, origin: str, intrinsics: Tensor | None, size: tuple[int, int] | None
) -> tuple[Tensor, tuple[int, int]]:
    """Intrinsics of a file's cameras, [n 3 3], and the image size (height, width) they belong to."""
    if cameras.intrinsics is not None:
        return torch.from_numpy(cameras.intrinsics), (cameras.image_height, cameras.image_width)
    height, width = _seed_size(size, origin)
    if cameras.fov_deg is None:
        return _seed_intrinsics(intrinsics, origin).repeat(len(cameras.world_to_cam), 1, 1), (height, width)
    side = width if cameras.fov_axis == "horizontal" else height
    lenses = torch.zeros(len(cameras.fov_deg), 3, 3, dtype=torch.float64)
    focal = side / 2 / torch.tan(torch.from_numpy(np.radians(cameras.fov_deg)) / 2)
    lenses[:, 0, 0] = lenses[:, 1, 1] = focal
    lenses[:, 0, 2], lenses[:, 1, 2], lenses[:, 2, 2] = width / 2, height / 2, 1.0
    return lenses, (height, width)


def _seed_size(size: tuple[int, int] | None, origin: str) -> tuple[int, int]:
    if size is None:
        raise CameraPathError(f"{origin} has no image size of its own: it needs image_height and image_width")
    return size


def _seed_intrinsics(intrinsics: Tensor | None, origin: str) -> Tensor:
    if intrinsics is None:
        raise CameraPathError(f"{origin} holds no field of view: it needs the seed's intrinsics")
    return intrinsics.to(torch.float64)


def _spread(world_to_cam: Tensor, lenses: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Cameras at even steps from the first to the last: between two, a straight line, the shorter turn and a geometric
    mean of focal lengths.
    """
    at = torch.linspace(0, len(world_to_cam) - 1, num_frames, dtype=torch.float64)
    before = at.floor().long().clamp(0, max(len(world_to_cam) - 2, 0))
    after, share = (before + 1).clamp(max=len(world_to_cam) - 1), at - before
    poses = invert_rigid(world_to_cam)
    rotation = slerp_rotations(poses[before, :3, :3], poses[after, :3, :3], share)
    center = torch.lerp(poses[before, :3, 3], poses[after, :3, 3], share[:, None])
    between = torch.lerp(lenses[before], lenses[after], share[:, None, None])
    for axis in (0, 1):
        focal = lenses[:, axis, axis].log()
        between[:, axis, axis] = torch.lerp(focal[before], focal[after], share).exp()
    return invert_rigid(rigid(rotation, center)), between


def _from_key_poses(
    poses: list[KeyPose], origin: str, num_frames: int, intrinsics: Tensor | None, size: tuple[int, int] | None
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    height, width = _seed_size(size, origin)
    if poses[0].hfov_deg is None:
        lenses = [_seed_intrinsics(intrinsics, origin)] * len(poses)
    else:
        lenses = [intrinsics_from_hfov(pose.hfov_deg, height, width) for pose in poses if pose.hfov_deg is not None]
    keys = KeyPoses(cam_to_world=torch.stack([_pose(pose) for pose in poses]), intrinsics=torch.stack(lenses))
    return *interpolate_key_poses(keys, num_frames), (height, width)


def _pose(key: KeyPose) -> Tensor:
    """cam_to_world. [4 4]"""
    position = torch.tensor(key.position_m, dtype=torch.float64)
    if key.look_at_m is not None:
        return invert_rigid(look_at(position, torch.tensor(key.look_at_m, dtype=torch.float64)))
    quaternion = key.quaternion or (1.0, 0.0, 0.0, 0.0)
    return rigid(unit_quat_to_matrix(torch.tensor(quaternion, dtype=torch.float64)), position)
