"""Camera paths from files: a pose for every frame (.npz), or a few key poses (.json).

`trajectory.npz` holds `w2c` [t 4 4] (OpenCV, metres), `intrinsics` [t 3 3] in pixels of an image of
`image_height` x `image_width`: the layout of the Lyra 2 reference implementation.

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

import json
import math
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera import (
    compose,
    intrinsics_from_hfov,
    invert_rigid,
    look_at,
    quat_to_matrix,
    rigid,
)
from lyra_core.geometry.key_poses import KeyPoses, interpolate_key_poses
from lyra_core.geometry.requests import (
    canonical_json,
    is_npz,
    num_chunks,
    read_trajectory_bytes,
    read_trajectory_npz,
)
from lyra_core.replacing import replacing
from lyra_core.values import CameraPath

MAX_KEY_POSES = 1000
_KEYS = {"position", "look_at", "quaternion", "hfov"}


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
        num_frames: 1 + 80 k. A .npz is cut to it; key poses are spread over it and need it.
        intrinsics: the seed's; used by key poses without hfov. [3 3]
        image_height: rows of the image those belong to; key poses need it. A .npz is resized to it.
        image_width: columns of it.
        any_count: allow any positive number of frames, for previews.

    Raises:
        CameraPathError: unreadable, pickled, NaN, non-rigid, wrong shapes, a count that is not 1 +
            80 k, malformed key poses.
    """
    data = source if isinstance(source, bytes) else read_trajectory_bytes(source)
    origin = "trajectory" if isinstance(source, bytes) else str(source)
    name = "custom" if isinstance(source, bytes) else Path(source).stem
    if not data:
        raise CameraPathError(f"{origin} is empty; it needs a .npz of poses or .json key poses")
    size = None if image_height is None or image_width is None else (image_height, image_width)
    if not is_npz(data):
        return _from_key_poses(data, origin, name, _count(num_frames, any_count, origin), intrinsics, size)
    arrays = read_trajectory_npz(data, origin)
    held = len(arrays.world_to_cam)
    count = _count(held if num_frames is None else num_frames, any_count, origin)
    if held < count:
        raise CameraPathError(f"{origin} has {held} frames, {count} are asked for; ask for fewer or extend the file")
    try:
        path = CameraPath(
            world_to_cam=torch.from_numpy(arrays.world_to_cam[:count]),
            intrinsics=torch.from_numpy(arrays.intrinsics[:count]),
            image_height=arrays.image_height,
            image_width=arrays.image_width,
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
        raise CameraPathError(f"{origin} holds key poses: say over how many frames to spread them (num_frames)")
    if not any_count:
        num_chunks(num_frames)
    elif num_frames < 1:
        raise CameraPathError(f"a camera path needs at least one frame, found {num_frames}")
    return num_frames


def _from_key_poses(
    data: bytes,
    origin: str,
    name: str,
    num_frames: int,
    intrinsics: Tensor | None,
    size: tuple[int, int] | None,
) -> CameraPath:
    if size is None:
        raise CameraPathError(f"{origin} holds key poses: they need image_height and image_width")
    entries = json.loads(canonical_json(data, origin))
    if isinstance(entries, dict):
        entries = entries.get("key_poses")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KEY_POSES:
        raise CameraPathError(f'{origin} must be a list of 1 to {MAX_KEY_POSES} key poses, or {{"key_poses": [...]}}')
    poses = torch.stack([_pose(entry, f"{origin}, key pose {i}") for i, entry in enumerate(entries)])
    lenses = [_lens(entry, f"{origin}, key pose {i}", size) for i, entry in enumerate(entries)]
    if any(lens is None for lens in lenses):
        if any(lens is not None for lens in lenses):
            raise CameraPathError(f"{origin}: give hfov in every key pose or in none")
        if intrinsics is None:
            raise CameraPathError(f"{origin}: without hfov, key poses need the seed's intrinsics")
        lenses = [intrinsics.to(torch.float64)] * len(entries)
    world_to_cam, focal = interpolate_key_poses(
        KeyPoses(
            cam_to_world=poses,
            intrinsics=torch.stack([lens for lens in lenses if lens is not None]),
        ),
        num_frames,
    )
    path = CameraPath(
        world_to_cam=world_to_cam,
        intrinsics=focal,
        image_height=size[0],
        image_width=size[1],
        name=name,
    )
    return relative_to_first(path)


def _pose(entry: object, where: str) -> Tensor:
    if not isinstance(entry, dict) or "position" not in entry or not set(entry) <= _KEYS:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise CameraPathError(
            f"{where} must be an object with position and any of look_at, quaternion, hfov; found {found}"
        )
    if "look_at" in entry and "quaternion" in entry:
        raise CameraPathError(f"{where} has both look_at and quaternion; keep one")
    position = _vector(entry["position"], 3, f"{where}: position")
    if "look_at" in entry:
        try:
            return invert_rigid(look_at(position, _vector(entry["look_at"], 3, f"{where}: look_at")))
        except CameraPathError as error:
            raise CameraPathError(f"{where}: {error}") from error
    quaternion = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    if "quaternion" in entry:
        quaternion = _vector(entry["quaternion"], 4, f"{where}: quaternion")
        if not 0.5 < float(quaternion.norm()) < 2:
            raise CameraPathError(f"{where}: a quaternion wxyz has norm 1, found {float(quaternion.norm()):.3g}")
    return rigid(quat_to_matrix(quaternion), position)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lens(entry: dict[str, object], where: str, size: tuple[int, int]) -> Tensor | None:
    hfov = entry.get("hfov")
    if hfov is None:
        return None
    if not _is_number(hfov):
        raise CameraPathError(f"{where}: hfov must be a number of degrees, found {hfov!r}")
    return intrinsics_from_hfov(float(hfov), *size)


def _vector(value: object, length: int, where: str) -> Tensor:
    numbers = [float(v) for v in value if _is_number(v)] if isinstance(value, list) else []
    if not isinstance(value, list) or not len(numbers) == len(value) == length:
        raise CameraPathError(f"{where} must be {length} numbers, found {value!r:.80}")
    if not all(math.isfinite(v) and abs(v) < 1e6 for v in numbers):
        raise CameraPathError(f"{where} must be finite and below 1e6, found {numbers}")
    return torch.tensor(numbers, dtype=torch.float64)
