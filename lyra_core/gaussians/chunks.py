"""How a long video is cut into overlapping chunks, and which chunk owns a Gaussian when they are
put together again.

Shape legend: t frames, n Gaussians.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra_core.errors import CameraPathError, ReconstructionError
from lyra_core.geometry.alignment import camera_centers
from lyra_core.geometry.camera import slerp_rotations

MIN_OVERLAP = 3
# Distances given to Gaussians that no camera sees: a chunk keeps what only it could have made.
UNSEEN_BY_OWNER = 1e5
UNSEEN_BY_OTHERS = 1e6
NEAR_PLANE = 1e-6


def subsample_frames(num_frames: int, max_frames: int) -> Int[Tensor, " t"]:
    """At most max_frames indices, evenly spread, first and last included, rounded down."""
    if num_frames < 1 or max_frames < 1:
        raise ReconstructionError(
            f"choosing frames needs at least one frame and a limit of one, found {num_frames} and {max_frames}"
        )
    if num_frames <= max_frames:
        return torch.arange(num_frames)
    return _spread(0, num_frames - 1, max_frames)


def uniform_chunks(num_frames: int, num_chunks: int, chunk_size: int, overlap: int) -> list[Int[Tensor, " t"]]:
    """Chunks of one size over evenly spread frames; neighbours share `overlap` frames.

    Args:
        num_frames: frames of the video.
        num_chunks: chunks to make; fewer if the video is too short for distinct frames.
        chunk_size: frames of a chunk.
        overlap: shared frames, at least 3.

    Returns:
        frame indices of each chunk.

    Raises:
        ReconstructionError: sizes that do not fit together.
    """
    _require_sizes(num_chunks, chunk_size, overlap)
    step = chunk_size - overlap
    num_chunks = min(num_chunks, max(1, -(-(num_frames - overlap) // step)))
    sampled = subsample_frames(num_frames, num_chunks * chunk_size - (num_chunks - 1) * overlap)
    return [sampled[i * step : i * step + chunk_size] for i in range(num_chunks)]


def split_chunks(num_frames: int, starts: tuple[int, ...], chunk_size: int, overlap: int) -> list[Int[Tensor, " t"]]:
    """Chunks between given frames, each led by the last frames of the chunk before.

    Args:
        num_frames: frames of the video.
        starts: first new frame of every chunk but the first, rising.
        chunk_size: most frames of a chunk, the shared ones included.
        overlap: shared frames, at least 3.

    Returns:
        frame indices of each chunk.

    Raises:
        ReconstructionError: sizes that do not fit together, or starts that do not rise inside the
            video.
    """
    _require_sizes(len(starts) + 1, chunk_size, overlap)
    bounds = [0, *starts, num_frames]
    if any(b <= a for a, b in pairwise(bounds)):
        raise ReconstructionError(
            f"chunk starts must rise strictly between 0 and {num_frames}, found {starts}; sort and deduplicate them"
        )
    chunks: list[Tensor] = []
    for first, end in pairwise(bounds):
        lead = chunks[-1][-overlap:] if chunks else torch.empty(0, dtype=torch.int64)
        room = min(chunk_size - len(lead), end - first)
        chunks.append(torch.cat([lead, _spread(first, end - 1, room)]))
    return chunks


def _spread(first: int, last: int, count: int) -> Tensor:
    # Integer arithmetic: rounding down a floating linspace depends on the machine.
    if count == 1:
        return torch.tensor([first])
    return first + torch.arange(count) * (last - first) // (count - 1)


def _require_sizes(num_chunks: int, chunk_size: int, overlap: int) -> None:
    if num_chunks < 1 or overlap < MIN_OVERLAP or chunk_size < 2 * overlap:
        raise ReconstructionError(
            f"chunks need an overlap of at least {MIN_OVERLAP} frames and twice that in size, "
            "found "
            f"{num_chunks} chunks of {chunk_size} with overlap {overlap}"
        )


def nearest_camera(
    means: Float[Tensor, "n 3"],
    world_to_cam: Float[Tensor, "t 4 4"],
    intrinsics: Float[Tensor, "t 3 3"],
    height: int,
    width: int,
) -> Float[Tensor, " n"]:
    """Distance of each point to the closest camera that has it in its image, infinity where none
    has. Metres.
    """
    nearest = torch.full((len(means),), torch.inf, dtype=means.dtype, device=means.device)
    w2c, intrinsics = world_to_cam.to(means), intrinsics.to(means)
    centers = camera_centers(w2c)
    for pose, k, center in zip(w2c, intrinsics, centers, strict=True):
        x, y, z = (means @ pose[:3, :3].mT + pose[:3, 3]).unbind(-1)
        z_safe = z.clamp_min(NEAR_PLANE)
        u = k[0, 0] * x / z_safe + k[0, 2]
        v = k[1, 1] * y / z_safe + k[1, 2]
        inside = (z > NEAR_PLANE) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        distance = torch.where(inside, (means - center).norm(dim=-1), torch.inf)
        nearest = torch.minimum(nearest, distance)
    return nearest


def owned_by(
    own_distance: Float[Tensor, " n"], other_distance: Float[Tensor, " n"], tolerance_m: float = 1.0
) -> Bool[Tensor, " n"]:
    """Which Gaussians a chunk keeps: it holds the nearest camera that sees them, or nearly so.

    Args:
        own_distance: nearest_camera of the chunk that made them. [n]
        other_distance: the smallest nearest_camera of all other chunks. [n]
        tolerance_m: how much farther the own camera may be.
    """
    own = own_distance.nan_to_num(posinf=UNSEEN_BY_OWNER)
    other = other_distance.nan_to_num(posinf=UNSEEN_BY_OTHERS)
    return (own <= other) | (own - other < tolerance_m)


def interpolate_cameras(
    world_to_cam: Float[Tensor, "t 4 4"], frames: Int[Tensor, " t"], num_frames: int
) -> Float[Tensor, "m 4 4"]:
    """Cameras of every frame from those of some: centres linear, orientations spherical, clamped at
    both ends.

    Args:
        world_to_cam: known cameras. [t 4 4]
        frames: their frame indices, rising. [t]
        num_frames: frames wanted, from 0.

    Raises:
        CameraPathError: indices that do not rise, or of another count than the cameras.
    """
    if len(frames) != len(world_to_cam) or bool((frames.diff() <= 0).any()) or len(frames) < 1:
        raise CameraPathError(
            "interpolating cameras needs one rising frame index for each, found "
            f"{len(world_to_cam)} cameras and "
            f"indices {frames.tolist()[:8]}"
        )
    w2c = world_to_cam.detach().to("cpu", torch.float64)
    wanted = torch.arange(num_frames).clamp(int(frames[0]), int(frames[-1]))
    upper = torch.searchsorted(frames, wanted).clamp(1 if len(frames) > 1 else 0, len(frames) - 1)
    lower = (upper - 1).clamp_min(0)
    span = (frames[upper] - frames[lower]).clamp_min(1)
    t = (wanted - frames[lower]).double() / span
    centers, rotations = camera_centers(w2c), w2c[:, :3, :3]
    rotation = slerp_rotations(rotations[lower], rotations[upper], t)
    center = torch.lerp(centers[lower], centers[upper], t[:, None])
    out = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    out[:, :3, :3] = rotation
    out[:, :3, 3] = -(rotation @ center[..., None])[..., 0]
    return out
