"""Cameras in JSON: key poses of our own, nerfstudio's transforms.json and camera_path.json.

nerfstudio's cameras are OpenGL cameras (x right, y up, z backward) and its matrices camera-to-world; both are turned
into OpenCV world-to-camera here. Its world frame does not matter: every path is re-expressed in its first camera's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numpy as np

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_list import CameraList, KeyPose, checked_cameras

MAX_KEY_POSES = 1000
_KEYS = {"position", "look_at", "quaternion", "hfov"}
# Camera models of nerfstudio that a pinhole stands for; lens distortion is left out.
_PINHOLES = {"OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"}
_OPENGL_AXES = np.array([1.0, -1.0, -1.0])
_LENGTH_LIMIT_M = 1e6


def load_json(data: bytes, origin: str) -> object:
    """A JSON document, with or without a byte order mark.

    Raises:
        CameraPathError: not JSON, or it holds NaN or infinity.
    """

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"it holds {number}")
        return value

    try:
        return json.loads(data, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise CameraPathError(f"{origin} is neither .npz nor valid JSON: {error}") from error


def read_camera_json(data: bytes, origin: str) -> CameraList | list[KeyPose]:
    """What a JSON file of cameras holds.

    Raises:
        CameraPathError: not JSON, none of the layouts, or a malformed camera; the message names it.
    """
    document = load_json(data, origin)
    if isinstance(document, dict) and "camera_path" in document:
        return _read_camera_path(document, origin)
    if isinstance(document, dict) and "frames" in document:
        return _read_transforms(document, origin)
    entries = document.get("key_poses") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KEY_POSES:
        found = f"an object with {sorted(document)[:8]}" if isinstance(document, dict) else type(document).__name__
        raise CameraPathError(
            f'{origin} must be a list of 1 to {MAX_KEY_POSES} key poses, {{"key_poses": [...]}}, or nerfstudio\'s '
            f"transforms.json (frames) or camera_path.json (camera_path); found {found}"
        )
    poses = [_key_pose(entry, f"{origin}, key pose {i}") for i, entry in enumerate(entries)]
    if len({pose.hfov_deg is None for pose in poses}) > 1:
        raise CameraPathError(f"{origin}: give hfov in every key pose or in none")
    return poses


def _key_pose(entry: object, where: str) -> KeyPose:
    if not isinstance(entry, dict) or "position" not in entry or not set(entry) <= _KEYS:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise CameraPathError(
            f"{where} must be an object with position and any of look_at, quaternion, hfov; found {found}"
        )
    if "look_at" in entry and "quaternion" in entry:
        raise CameraPathError(f"{where} has both look_at and quaternion; keep one")
    position = _vector(entry["position"], 3, f"{where}: position")
    target = _vector(entry["look_at"], 3, f"{where}: look_at") if "look_at" in entry else None
    if target is not None and math.dist(position, target) == 0:
        raise CameraPathError(f"{where}: a camera cannot look at its own position {list(position)}; move the target")
    quaternion = _vector(entry["quaternion"], 4, f"{where}: quaternion") if "quaternion" in entry else None
    if quaternion is not None and not 0.5 < math.hypot(*quaternion) < 2:
        raise CameraPathError(f"{where}: a quaternion wxyz has norm 1, found {math.hypot(*quaternion):.3g}")
    hfov = entry.get("hfov")
    if hfov is not None:
        if not _is_number(hfov):
            raise CameraPathError(f"{where}: hfov must be a number of degrees, found {hfov!r:.80}")
        if not 0 < hfov < 180:
            raise CameraPathError(f"{where}: a field of view lies between 0 and 180 degrees, found {hfov!r:.80}")
        hfov = float(hfov)
    return KeyPose(position_m=position, look_at_m=target, quaternion=quaternion, hfov_deg=hfov)


def _read_transforms(document: Mapping[str, object], origin: str) -> CameraList:
    """nerfstudio's (and Blender's) transforms.json: one camera a frame, in the order of the images' names."""
    frames = _objects(document["frames"], f"{origin}: frames")
    model = document.get("camera_model", "OPENCV")
    if not isinstance(model, str) or model.upper() not in _PINHOLES:
        raise CameraPathError(f"{origin}: a camera path needs pinhole cameras, found camera_model {model!r:.80}")
    if all(isinstance(frame.get("file_path"), str) for frame in frames):
        frames = sorted(frames, key=lambda frame: _natural(str(frame["file_path"])))
    poses = [
        _matrix(frame.get("transform_matrix"), f"{origin}, frame {i}: transform_matrix")
        for i, frame in enumerate(frames)
    ]
    merged = [{**document, **frame} for frame in frames]
    world_to_cam = _from_opengl(np.stack(poses), origin)
    if all("fl_x" in lens for lens in merged):
        sizes = {tuple(_number(lens.get(side), f"{origin}: {side}") for side in ("h", "w")) for lens in merged}
        if len(sizes) != 1:
            raise CameraPathError(f"{origin}: a camera path needs images of one size, found {len(sizes)}")
        ((height, width),) = sizes
        lenses = np.stack([_lens(lens, f"{origin}, frame {i}") for i, lens in enumerate(merged)])
        listed = CameraList(
            world_to_cam=world_to_cam, intrinsics=lenses, image_height=int(height), image_width=int(width)
        )
    else:
        angles = [
            math.degrees(_number(lens.get("camera_angle_x"), f"{origin}, frame {i}: fl_x or camera_angle_x"))
            for i, lens in enumerate(merged)
        ]
        listed = CameraList(world_to_cam=world_to_cam, fov_deg=np.array(angles), fov_axis="horizontal")
    return checked_cameras(listed, origin)


def _read_camera_path(document: Mapping[str, object], origin: str) -> CameraList:
    """nerfstudio's camera_path.json: cameras at even steps of time, whatever its fps and seconds say."""
    cameras = _objects(document["camera_path"], f"{origin}: camera_path")
    kind = document.get("camera_type", "perspective")
    if kind != "perspective":
        raise CameraPathError(f"{origin}: a camera path needs perspective cameras, found camera_type {kind!r:.80}")
    poses, angles = [], []
    for i, camera in enumerate(cameras):
        poses.append(_matrix(camera.get("camera_to_world"), f"{origin}, camera {i}: camera_to_world"))
        if "fov" in camera:
            angles.append(_number(camera["fov"], f"{origin}, camera {i}: fov"))
    if angles and len(angles) != len(cameras):
        raise CameraPathError(f"{origin}: give fov for every camera or for none")
    listed = CameraList(
        world_to_cam=_from_opengl(np.stack(poses), origin),
        fov_deg=np.array(angles) if angles else None,
        fov_axis="vertical",
        is_spread=True,
    )
    return checked_cameras(listed, origin)


def _from_opengl(cam_to_world: np.ndarray, origin: str) -> np.ndarray:
    """OpenGL camera-to-world to OpenCV world-to-camera, by a transpose: exact for the rotation. [n 4 4]"""
    checked_cameras(CameraList(world_to_cam=cam_to_world), origin)
    rotation = (cam_to_world[:, :3, :3] * _OPENGL_AXES).transpose(0, 2, 1)
    world_to_cam = np.tile(np.eye(4), (len(cam_to_world), 1, 1))
    world_to_cam[:, :3, :3] = rotation
    world_to_cam[:, :3, 3] = -(rotation @ cam_to_world[:, :3, 3:])[..., 0]
    return world_to_cam + 0.0  # -0.0 becomes 0.0


def _lens(lens: Mapping[str, object], where: str) -> np.ndarray:
    width, height = _number(lens.get("w"), f"{where}: w"), _number(lens.get("h"), f"{where}: h")
    fx = _number(lens["fl_x"], f"{where}: fl_x")
    fy = _number(lens.get("fl_y", fx), f"{where}: fl_y")
    cx, cy = (
        _number(lens.get("cx", width / 2), f"{where}: cx"),
        _number(lens.get("cy", height / 2), f"{where}: cy"),
    )
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _objects(value: object, where: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise CameraPathError(f"{where} must be a list of objects, one a camera, found {value!r:.80}")
    return value


def _matrix(value: object, where: str) -> np.ndarray:
    """16 numbers by rows, or 4 (or the first 3) rows of 4. [4 4] float64"""
    rows: list[object] = list(value) if isinstance(value, list) else []
    numbers = [n for row in rows for n in (row if isinstance(row, list) else [row])]
    is_square = len(rows) == 16 or (len(rows) in (3, 4) and all(isinstance(r, list) and len(r) == 4 for r in rows))
    if not is_square or not all(_is_number(n) for n in numbers):
        raise CameraPathError(f"{where} must be 4 rows of 4 numbers, found {value!r:.80}")
    if len(numbers) == 12:
        numbers += [0.0, 0.0, 0.0, 1.0]
    if any(abs(n) >= _LENGTH_LIMIT_M for n in numbers if _is_number(n)):
        raise CameraPathError(f"{where} must be finite and below 1e6, found {value!r:.80}")
    return np.array(numbers, np.float64).reshape(4, 4)


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Names with numbers in them in the order people count: frame_2 before frame_10."""
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.findall(r"[0-9]{1,18}|[^0-9]+", name))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object, where: str) -> float:
    if not _is_number(value) or not abs(value) < 1e9:
        raise CameraPathError(f"{where} must be a number, found {value!r:.80}")
    return float(value)


def _vector(value: object, length: int, where: str) -> tuple[float, ...]:
    numbers: Sequence[int | float] = [v for v in value if _is_number(v)] if isinstance(value, list) else []
    if not isinstance(value, list) or not len(numbers) == len(value) == length:
        raise CameraPathError(f"{where} must be {length} numbers, found {value!r:.80}")
    if not all(abs(v) < _LENGTH_LIMIT_M for v in numbers):  # also NaN and infinity
        raise CameraPathError(f"{where} must be finite and below 1e6, found {value!r:.80}")
    return tuple(float(v) for v in numbers)
