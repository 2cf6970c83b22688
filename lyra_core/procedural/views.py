"""Where cameras stand in procedural scenes and how they move, without ever entering a shape."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_paths import build_camera_path
from lyra_core.geometry.requests import PRESETS
from lyra_core.native import CHUNK_FRAMES
from lyra_core.procedural.atlas import stream_seed
from lyra_core.procedural.intersect_cpu import nearest_hits_cpu
from lyra_core.procedural.primitives import ground_height
from lyra_core.procedural.scene_batch import Scene, park_all, pick_one
from lyra_core.values import CameraPath

MARGIN = 0.22
"""Least distance of a moving camera to anything, in units of the scene's size."""
MAX_PLANE_SHARE = 0.6
MAX_SKY_SHARE = 0.6
TRIES = 32
PROBE = (12, 20)
WANDERINGS = ("wander", "wander-and-return")
"""Random smooth motions, besides the presets of geometry.requests."""
PATHS = (*PRESETS, *WANDERINGS)


def _wander(s: Float[np.ndarray, " t"], reach_m: float, rng: np.random.Generator) -> Float[np.ndarray, "t 4 4"]:
    """Camera to start along a smooth random walk: a few slow waves on every axis, mostly ahead, looking about."""
    motion = np.zeros((len(s), 5))
    for axis, reach in enumerate((0.7, 0.12, 0.7, 0.6, 0.1)):
        for wave in range(1, 4):
            phase = rng.uniform(0, 2 * math.pi)
            amount = reach * rng.normal(0, 0.7) / wave
            motion[:, axis] += amount * (np.sin(wave * math.pi * s + phase) - math.sin(phase))
    motion[:, 2] += 0.8 * s
    poses = np.tile(np.eye(4), (len(s), 1, 1))
    poses[:, :3, :3] = _rotations(motion[:, 3], motion[:, 4])
    poses[:, :3, 3] = reach_m * motion[:, :3]
    return poses


def _motion(
    path_name: str,
    num_frames: int,
    K: Tensor,
    size: tuple[int, int],
    depth_m: float,
    reach_m: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "t 4 4"]:
    """Camera to start along a preset, faster where there is less than a chunk of frames to show it, or a wandering."""
    s = np.linspace(0, 1, num_frames) if num_frames > 1 else np.zeros(1)
    if path_name == "wander":
        return _wander(s, reach_m, rng)
    if path_name == "wander-and-return":
        return _wander(0.5 - 0.5 * np.cos(2 * math.pi * s), reach_m, rng)
    gesture = float(rng.uniform(0.7, 2.2))
    is_steady = PRESETS[path_name].is_steady
    path = build_camera_path(
        path_name,
        num_frames=num_frames,
        intrinsics=K,
        image_height=size[0],
        image_width=size[1],
        scene_depth_m=min(depth_m, 2.5 * reach_m),
        strength=gesture * max(1.0, CHUNK_FRAMES / max(num_frames - 1, 1)) if is_steady else gesture,
        any_count=True,
    )
    return path.cam_to_world.numpy()


REACH_M = {"room": 1.4, "street": 4.0, "terrain": 5.0, "tabletop": 0.2}
"""How far a wandering strays, by kind of scene."""


def _rotations(yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Rotations camera to frame: tilt about x (positive looks down), then turn about y (to the right)."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(-1, 3, 3)
    tilt = np.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).reshape(-1, 3, 3)
    return turn @ tilt


def _candidate(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A random camera to world [4 4] above the ground inside `stand`."""
    x, z = rng.uniform(scene.stand[0], scene.stand[2]), rng.uniform(scene.stand[1], scene.stand[3])
    ground = pick_one(scene.ground)
    floor = float(ground_height(ground, torch.tensor([[x]]).float(), torch.tensor([[z]]).float()))
    eye = rng.uniform(*scene.eye_m)
    yaw = rng.uniform(-math.pi, math.pi)
    if scene.kind == "street" and rng.random() < 0.7:
        yaw = rng.normal(0, 0.45)
    elif scene.kind == "tabletop":
        yaw = math.atan2(-x, 0.35 - z) + rng.normal(0, 0.2)
    elif scene.kind == "room" and rng.random() < 0.6:
        yaw = math.atan2(-x, -z) + rng.normal(0, 0.5)
    pitch = rng.normal(scene.pitch_rad, 0.08)
    pose = np.eye(4)
    pose[:3, :3] = _rotations(np.array([yaw]), np.array([pitch]))[0]
    pose[:3, 3] = x, -(floor + eye), z
    return pose


def view_shares(scene: Scene, cam_to_world: Float[np.ndarray, "4 4"], fov_rad: float) -> tuple[float, float, float]:
    """What fills a view: the largest plane's share, the sky's share, and the median depth in metres of the rest."""
    rows, columns = PROBE
    tan = math.tan(fov_rad / 2)
    u = torch.linspace(-tan, tan, columns)
    v = torch.linspace(-tan, tan, columns)[(columns - rows) // 2 : (columns + rows) // 2]
    grid = torch.stack([u.expand(rows, columns), v[:, None].expand(rows, columns), torch.ones(rows, columns)], -1)
    pose = torch.from_numpy(cam_to_world).float()
    direction = (grid.reshape(-1, 3) @ pose[:3, :3].T)[None]
    origin = pose[:3, 3].expand_as(direction)
    boxes, ellipsoids, frusta = park_all(scene)
    hits = nearest_hits_cpu(origin, direction, boxes, ellipsoids, frusta, pick_one(scene.ground), is_flat=scene.is_flat)
    t, point = hits.t[0], origin[0] + hits.t[0, :, None].clamp(max=1e4) * direction[0]
    seen = torch.isfinite(t)
    if not bool(seen.any()):
        return 1.0, 1.0, 0.0
    label = _plane_labels(scene, hits.shape[0], point)
    share = float(torch.bincount(label[seen]).max()) / t.numel()
    return share, 1 - float(seen.float().mean()), float(t[seen].median())


def _plane_labels(scene: Scene, shape: Tensor, point: Tensor) -> Tensor:
    """A number for each face of each box; other shapes have one each."""
    boxes = scene.boxes.center.shape[0]
    which = shape.clamp(max=max(boxes - 1, 0))
    axis = torch.zeros_like(shape)
    if boxes:
        delta = point - scene.boxes.center[which]
        cos, sin = scene.boxes.heading[which].unbind(-1)
        local = torch.stack(
            [cos * delta[:, 0] + sin * delta[:, 2], delta[:, 1], cos * delta[:, 2] - sin * delta[:, 0]], -1
        )
        ratio = local / scene.boxes.half[which]
        axis = torch.where(shape < boxes, ratio.abs().argmax(-1), axis)
    return shape * 3 + axis


def sample_start(scene: Scene, rng: np.random.Generator, fov_rad: float) -> Float[np.ndarray, "4 4"]:
    """A camera to world that is clear of shapes and does not stare at one plane or the empty sky.

    Of TRIES random cameras the first good one; without any, the one with the smallest largest plane among the clear.

    Raises:
        CameraPathError: no place for a camera after TRIES tries.
    """
    best, best_score = None, math.inf
    for _ in range(TRIES):
        pose = _candidate(scene, rng)
        clear = float(scene.clearance_m(torch.from_numpy(pose[None, :3, 3]))[0])
        if clear < min(2 * MARGIN * scene.size_m, 0.8 * scene.eye_m[0]):
            continue
        plane, sky, depth_m = view_shares(scene, pose, fov_rad)
        good = plane <= MAX_PLANE_SHARE and sky <= MAX_SKY_SHARE and depth_m > 0.8 * scene.size_m
        score = max(plane, sky) + (0.0 if depth_m > 0.8 * scene.size_m else 0.5)
        if good:
            return pose
        if score < best_score:
            best, best_score = pose, score
    if best is not None:
        return best
    raise CameraPathError(
        f"no clear place for a camera in {scene.kind} {scene.seed} ({scene.split}) after {TRIES} tries; "
        "use another seed"
    )


def sample_path(
    scene: Scene,
    path_name: str,
    num_frames: int,
    height: int,
    width: int,
    *,
    take: int = 0,
) -> CameraPath:
    """A camera path through a scene, deterministic in its arguments.

    Args:
        scene: what to move through; no camera comes nearer to a shape than a margin, shortening the motion if needed.
        path_name: one of PATHS: the presets, "wander" and "wander-and-return".
        num_frames: frames.
        height: rows.
        width: columns.
        take: another number gives another start and motion in the same scene.

    Raises:
        CameraPathError: an unknown path, no frames, or no clear place to stand.
    """
    if path_name not in PATHS:
        raise CameraPathError(f"paths of procedural scenes are {', '.join(PATHS)}; found {path_name!r}")
    if num_frames < 1:
        raise CameraPathError(f"a path needs at least one frame, found {num_frames}")
    rng = np.random.Generator(np.random.PCG64([stream_seed(scene.seed, scene.split), 1 + take]))
    fov = math.radians(rng.uniform(42, 62) if scene.kind == "tabletop" else rng.uniform(52, 78))
    start = sample_start(scene, rng, fov)
    depth_m = max(view_shares(scene, start, fov)[2], 0.5 * scene.size_m)
    focal = 0.5 * width / math.tan(fov / 2)
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    reach_m = min(REACH_M[scene.kind], 0.9 * depth_m)
    cam_to_world = _shorten(scene, start, _motion(path_name, num_frames, K, (height, width), depth_m, reach_m, rng))
    rotation = torch.from_numpy(cam_to_world[:, :3, :3]).mT
    world_to_cam = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    world_to_cam[:, :3, :3] = rotation
    world_to_cam[:, :3, 3] = -(rotation @ torch.from_numpy(cam_to_world[:, :3, 3:]))[..., 0]
    return CameraPath(
        world_to_cam=world_to_cam,
        intrinsics=K.repeat(num_frames, 1, 1),
        image_height=height,
        image_width=width,
        name=path_name,
    )


def _shorten(
    scene: Scene, start: Float[np.ndarray, "4 4"], motion: Float[np.ndarray, "t 4 4"]
) -> Float[np.ndarray, "t 4 4"]:
    """Camera to world along a motion from a start, its translation halved until everything is clear."""
    local = motion.copy()
    for halving in range(7):
        share = 0.5**halving if halving < 6 else 0.0
        local[:, :3, 3] = motion[:, :3, 3] * share
        poses = start @ local
        if float(scene.clearance_m(torch.from_numpy(poses[:, :3, 3])).min()) > MARGIN * scene.size_m:
            break
    return poses
