"""Whether the camera of a generated chunk moved as it was asked to, and how the next one makes up for it.

Depth and poses of a chunk come from a depth network that is told no cameras; their scale is set by the depth that is
already known of the chunk's first frame. Scaling them to the requested path would hide the very error that is sought.

Legend: k frames that are looked at, t frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.config.video import DepthConfig
from lyra_core.depth import DepthEstimator
from lyra_core.errors import DepthError
from lyra_core.geometry.camera import slerp_rotations
from lyra_core.geometry.resample import poses_at
from lyra_core.geometry.rotation import invert_rigid, rigid, rotation_angle_deg
from lyra_core.values import CameraPath
from lyra_core.video.depth_cache import mask_depth, overlap_scale

STILL_M = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFrames:
    """What a depth network makes of some frames of a world, in the world's frame and metres.

    Attributes:
        depth_m: 0 where unknown. [k h w]
        world_to_cam: found in the frames; those of the request where the network finds none. [k 4 4]
    """

    depth_m: Float[Tensor, "k h w"]
    world_to_cam: Float[Tensor, "k 4 4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """How far a chunk's camera is from its request, from the chunk's first frame on; NaN where nothing moves.

    Attributes:
        rotation_deg: median angle between requested and found rotations.
        direction_deg: angle between the whole requested and the whole found translation.
        length_ratio: length of the found path over that of the requested one.
    """

    rotation_deg: float
    direction_deg: float
    length_ratio: float

    def as_tensor(self) -> Float[Tensor, " 3"]:
        """For the chunk store."""
        return torch.tensor([self.rotation_deg, self.direction_deg, self.length_ratio], dtype=torch.float64)


def frames_to_look_at(first: int, chunk_frames: int, interval: int) -> list[int]:
    """The last frame before a chunk, and frames of it at an interval, counted back from its last one.

    Args:
        first: number of the chunk's first frame.
        chunk_frames: of the chunk.
        interval: of the frames that the depth network is shown.
    """
    return [first - 1, *reversed(range(first + chunk_frames - 1, first - 1, -interval))]


def look(
    estimator: DepthEstimator,
    frames: UInt8[Tensor, "k h w 3"],
    first_depth_m: Float[Tensor, "h w"],
    first_world_to_cam: Float[Tensor, "4 4"],
    requested: CameraPath | None,
    config: DepthConfig,
) -> SeenFrames:
    """Depth and cameras of a chunk's frames.

    Args:
        estimator: is told no cameras.
        frames: the last frame before the chunk, then frames of it.
        first_depth_m: what is known of the first frame's depth, 0 where nothing is.
        first_world_to_cam: its camera.
        requested: cameras asked of these frames, which stand in where an estimator finds none; None where nothing can.
        config: how far depth is believed.

    Raises:
        DepthError: no cameras, found or requested.
    """
    estimate = estimator.estimate(frames, None)
    depth = mask_depth(estimate, config)
    trusted = (estimate.confidence * ~estimate.sky)[:1].to(depth)
    scale = overlap_scale(depth[:1], first_depth_m[None].to(depth), trusted, config.min_overlap)
    if estimate.cameras is None:
        if requested is None:
            raise DepthError(
                "a video that was asked for no cameras needs a depth network that finds them, and this one finds none; "
                "take a recipe with mode='camera'"
            )
        return SeenFrames(depth_m=depth * scale, world_to_cam=requested.world_to_cam)
    own = estimate.cameras.world_to_cam @ estimate.cameras.cam_to_world[:1]
    own[:, :3, 3] *= scale
    return SeenFrames(depth_m=depth * scale, world_to_cam=own @ first_world_to_cam)


def measure(requested: Float[Tensor, "k 4 4"], found: Float[Tensor, "k 4 4"]) -> Adherence:
    """Compare two world-to-camera paths, each from its own first camera on."""
    asked, seen = (invert_rigid(path @ invert_rigid(path[:1])) for path in (requested, found))
    turned = rotation_angle_deg(asked[1:, :3, :3].mT @ seen[1:, :3, :3])
    asked_m, seen_m = (float(path[:, :3, 3].diff(dim=0).norm(dim=1).sum()) for path in (asked, seen))
    ends = [path[-1, :3, 3] for path in (asked, seen)]
    moves = min(float(end.norm()) for end in ends) > STILL_M
    cosine = (
        torch.nn.functional.cosine_similarity(ends[0], ends[1], dim=0).clamp(-1, 1) if moves else torch.tensor(math.nan)
    )
    return Adherence(
        rotation_deg=float(turned.median()),
        direction_deg=math.degrees(math.acos(float(cosine))) if moves else math.nan,
        length_ratio=seen_m / asked_m if asked_m > STILL_M else math.nan,
    )


def between(frames: list[int], world_to_cam: Float[Tensor, "k 4 4"]) -> Float[Tensor, "t 4 4"]:
    """Cameras of all frames between those that were looked at: rotations on arcs, centres on lines.

    Args:
        frames: numbers of the frames, rising.
        world_to_cam: their cameras.
    """
    place = torch.tensor(frames, dtype=torch.float64)
    return poses_at(world_to_cam, place, torch.arange(frames[0], frames[-1] + 1, dtype=torch.float64))


def bend_back(
    requested: Float[Tensor, "t 4 4"], start: Float[Tensor, "4 4"], max_deg: float, max_share: float
) -> Float[Tensor, "t 4 4"]:
    """A path that begins where the camera was found and bends back to the request.

    The error shrinks evenly from the first camera on, by no more than the caps over the whole chunk; what is left of it
    is left to the next chunk.

    Args:
        requested: world-to-camera transforms of the chunk, from the last frame before it on.
        start: where that frame's camera was found.
        max_deg: most rotation that is made up for.
        max_share: most translation, as a share of the chunk's length.
    """
    asked = invert_rigid(requested)
    error = requested[0] @ invert_rigid(start)  # the found camera in the requested one
    angle = float(rotation_angle_deg(error[:3, :3]))
    offset, length_m = float(error[:3, 3].norm()), float(asked[:, :3, 3].diff(dim=0).norm(dim=1).sum())
    shares = [
        1.0 if angle <= max_deg else max_deg / angle,
        1.0 if offset <= max_share * length_m else max_share * length_m / offset,
    ]
    made_up = torch.linspace(0.0, min(shares), len(requested), dtype=torch.float64)
    left = 1.0 - made_up
    still = torch.eye(3, dtype=torch.float64).expand(len(left), 3, 3)
    rotation = slerp_rotations(still, error[:3, :3].expand(len(left), 3, 3), left)
    return invert_rigid(asked @ rigid(rotation, left[:, None] * error[:3, 3]))
