"""Which frames of a video are worth lifting, chosen by how far the camera moved, and how they are cut into chunks.

Shape legend: t frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra_core.errors import RecipeError
from lyra_core.geometry.camera import project
from lyra_core.values import CameraPath

# A grid of this many pixels on two depths stands for what a camera sees.
PROBE_ROWS, PROBE_COLUMNS = 5, 7
PROBE_DEPTHS = (0.5, 1.0, 2.0)
MIN_OVERLAP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyframeConfig:
    """When a frame shows enough that is new.

    Attributes:
        max_shift: mean displacement of the picture since the last keyframe, in image widths.
        min_shared: least share of the last keyframe's view that must still be in the picture.
        max_keyframes: most frames to lift; the thresholds are relaxed to meet it.
    """

    max_shift: float = 0.03
    min_shared: float = 0.95
    max_keyframes: int = 512

    def __post_init__(self) -> None:
        if not (self.max_shift >= 0 and 0 <= self.min_shared <= 1 and self.max_keyframes >= 2):
            raise RecipeError(
                f"keyframes need max_shift >= 0, min_shared in [0, 1] and max_keyframes >= 2, found {self}"
            )


def choose_keyframes(
    cameras: CameraPath, scene_depth_m: float, config: KeyframeConfig = KeyframeConfig()
) -> Int[Tensor, " t"]:
    """Frames to lift, rising, the first and the last included.

    A frame is taken when the picture has moved by more than `max_shift` since the last one taken, or when less than
    `min_shared` of it is still in view; both grow with rotation and with translation relative to depth, neither with
    time. A camera that stands still yields its first and last frame.

    Args:
        cameras: of the whole video.
        scene_depth_m: typical z-depth.
        config: thresholds.
    """
    if len(cameras) <= 2:
        return torch.arange(len(cameras))
    chosen = _greedy(cameras, scene_depth_m, config.max_shift, config.min_shared)
    shift, shared = config.max_shift, config.min_shared
    while len(chosen) > config.max_keyframes:
        shift, shared = max(shift, 0.002) * 1.25, shared * 0.95
        chosen = _greedy(cameras, scene_depth_m, shift, shared)
    return torch.tensor(chosen)


def _greedy(cameras: CameraPath, scene_depth_m: float, max_shift: float, min_shared: float) -> list[int]:
    chosen = [0]
    probes = _probe_points(cameras, 0, scene_depth_m)
    for frame in range(1, len(cameras)):
        shift, shared = _change(cameras, chosen[-1], frame, probes)
        if shift > max_shift or shared < min_shared or frame == len(cameras) - 1:
            chosen.append(frame)
            probes = _probe_points(cameras, frame, scene_depth_m)
    return chosen


def _probe_points(cameras: CameraPath, frame: int, scene_depth_m: float) -> Tensor:
    """World points on a grid of pixels at three depths. [n 3]"""
    u = (torch.arange(PROBE_COLUMNS).double() + 0.5) / PROBE_COLUMNS * cameras.image_width
    v = (torch.arange(PROBE_ROWS).double() + 0.5) / PROBE_ROWS * cameras.image_height
    K = cameras.intrinsics[frame]
    x, y = torch.meshgrid((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], indexing="xy")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3)
    depths = scene_depth_m * torch.tensor(PROBE_DEPTHS, dtype=torch.float64)
    local = (depths[:, None, None] * rays).reshape(-1, 3)
    w2c = cameras.world_to_cam[frame]
    return (local - w2c[:3, 3]) @ w2c[:3, :3]


def _change(cameras: CameraPath, last: int, frame: int, probes: Tensor) -> tuple[float, float]:
    """Mean displacement of probes seen by both frames, in image widths, and the share still seen."""
    before, _ = project(probes, cameras.world_to_cam[last], cameras.intrinsics[last])
    after, depth = project(probes, cameras.world_to_cam[frame], cameras.intrinsics[frame])
    u, v = after.unbind(-1)
    inside = (depth > 0) & (u >= 0) & (u < cameras.image_width) & (v >= 0) & (v < cameras.image_height)
    if not bool(inside.any()):
        return float("inf"), 0.0
    shift = float((after - before)[inside].norm(dim=-1).mean()) / cameras.image_width
    return shift, float(inside.double().mean())


def typical_depth_m(depth_m: Float[Tensor, "t h w"] | None, cameras: CameraPath) -> float:
    """Median of known depth; without any, the extent of the path, so that moving by it counts as seeing anew."""
    if depth_m is not None:
        known = depth_m[torch.isfinite(depth_m) & (depth_m > 0)]
        if len(known):
            return float(known.median())
    extent = float((cameras.centers_m - cameras.centers_m[:1]).norm(dim=-1).max())
    return extent if extent > 0 else 1.0


def overlap_for(chunk_frames: int) -> int:
    """Frames that neighbouring chunks share: at least 16 and a quarter, but never more than half a chunk."""
    return min(max(MIN_OVERLAP, chunk_frames // 4), chunk_frames // 2)


def plan_chunks(num_frames: int, chunk_frames: int) -> list[slice]:
    """Chunks of keyframes, all of one size, that cover everything; neighbours share overlap_for() frames or more.

    Raises:
        RecipeError: chunks of fewer than two frames.
    """
    if chunk_frames < 2:
        raise RecipeError(f"chunks need at least two frames, found {chunk_frames}")
    if num_frames <= chunk_frames:
        return [slice(0, num_frames)]
    step = chunk_frames - overlap_for(chunk_frames)
    count = 1 + -(-(num_frames - chunk_frames) // step)
    last = num_frames - chunk_frames
    starts = [round(i * last / (count - 1)) for i in range(count)]
    return [slice(start, start + chunk_frames) for start in starts]


def owned_frames(chunks: list[slice]) -> list[slice]:
    """Each keyframe's one chunk: overlaps are cut in the middle, where both neighbours know most context."""
    cuts = [0, *((after.start + before.stop) // 2 for before, after in pairwise(chunks))]
    cuts.append(chunks[-1].stop)
    return [slice(cuts[i], cuts[i + 1]) for i in range(len(chunks))]
