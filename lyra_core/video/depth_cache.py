"""Gives every remembered frame a depth in the world's one scale: windows of frames, masks and alignment.

An estimator sees a window of new frames at a time, and windows disagree about scale. Camera baselines alone cannot
settle it (a camera that only turns has none), so the corrected form compares each window with what the memory already
believes of the same pixels, and takes the weighted median of the log ratio.

Legend: n frames of a window, v remembered views, h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.config.rollout import REFERENCE_DEPTH, WarpConfig
from lyra_core.config.video import DepthConfig
from lyra_core.depth import DepthEstimate, DepthEstimator
from lyra_core.errors import DepthError
from lyra_core.geometry.warp import WarpSource, clean_depth, forward_warp
from lyra_core.values import CameraPath
from lyra_core.video.memory import SpatialMemory, StoredView

SKY_DEPTH_M = 1000.0


def window_frames(last_frame: int, chunk_frames: int, config: DepthConfig = REFERENCE_DEPTH) -> list[int]:
    """Frames the estimator sees after a chunk that ends with `last_frame`, ascending."""
    frames = {last_frame - config.interval_frames * i for i in range(config.max_frames)}
    if config.chunk_boundaries:
        frames |= set(range(0, last_frame, chunk_frames))
    return sorted(frame for frame in frames if frame >= 0)


def estimate_window(
    estimator: DepthEstimator,
    frames: UInt8[Tensor, "n h w 3"],
    cameras: CameraPath | None,
    remembered: Sequence[StoredView],
    warp: WarpConfig,
    config: DepthConfig = REFERENCE_DEPTH,
) -> Float[Tensor, "n h w"]:
    """Depth of a window, 0 where unknown, in the scale of the remembered views.

    Args:
        estimator: sees the frames, their cameras and, if aligned, the remembered depth of the same pixels.
        frames: sRGB.
        cameras: of the frames; None for one photograph without a known camera.
        remembered: views whose depth sets the scale.
        warp: how they are carried to the window's cameras.
        config: masks and alignment.

    Raises:
        DepthError: depth of another size, or without any valid pixel.
    """
    align = config.align == "overlap" and bool(remembered) and cameras is not None
    reference = remembered_depth(remembered, cameras, warp) if align and cameras is not None else None
    estimate = estimator.estimate(frames, cameras, None if reference is None else reference.cpu())
    _require_fitting(estimate, frames)
    depth = mask_depth(estimate, config)
    if reference is not None:
        weights = estimate.confidence * ~estimate.sky
        depth = depth * overlap_scale(depth, reference.to(depth), weights.to(depth), config.min_overlap)
    if not bool((depth > 0).flatten(1).any(1).all()):
        empty = (~(depth > 0).flatten(1).any(1)).nonzero().flatten().tolist()
        raise DepthError(
            f"every frame needs a pixel of known depth, found none in frames {empty} of the window; "
            f"use another estimator or lower min_confidence={config.min_confidence}"
        )
    return depth


def scale_views(memory: SpatialMemory, cameras: CameraPath, config: DepthConfig) -> list[StoredView]:
    """Remembered views that show most of what a window shows, the newest among them; none where nothing is aligned."""
    if config.align == "none" or not len(memory):
        return []
    ends = cameras[[0, len(cameras) - 1]]
    ids = set(memory.retrieve(ends.world_to_cam.float(), ends.intrinsics.float()))
    ids.add(max(memory.frame_ids))
    return [memory.view(i) for i in sorted(ids)]


def remembered_depth(remembered: Sequence[StoredView], cameras: CameraPath, warp: WarpConfig) -> Float[Tensor, "n h w"]:
    """What remembered views, splatted together, believe of other cameras' pixels; 0 where nothing landed."""
    depth = torch.stack([view.depth_m for view in remembered])[None]
    source = WarpSource(
        values=depth.new_zeros(*depth.shape[:2], 0, *depth.shape[2:]),
        depth_m=depth,
        world_to_cam=torch.stack([view.world_to_cam for view in remembered])[None],
        intrinsics=torch.stack([view.intrinsics for view in remembered])[None],
    )
    w2c, K = cameras.world_to_cam.to(depth), cameras.intrinsics.to(depth)
    return forward_warp(source, w2c, K, warp).depth_m


def overlap_scale(
    depth_m: Float[Tensor, "n h w"],
    reference_m: Float[Tensor, "n h w"],
    weights: Float[Tensor, "n h w"],
    min_overlap: float = 0.01,
) -> float:
    """The factor that brings depth to the reference: weighted median of the log ratio where both are known, else 1."""
    both = (depth_m > 0) & (reference_m > 0) & (weights > 0)
    if both.float().mean() < min_overlap:
        return 1.0
    ratio = torch.log(reference_m[both].double() / depth_m[both].double())
    order = torch.argsort(ratio, stable=True)
    cumulative = torch.cumsum(weights[both].double()[order], dim=0)
    middle = int(torch.searchsorted(cumulative, cumulative[-1] / 2))
    return math.exp(float(ratio[order[middle]]))


def mask_depth(estimate: DepthEstimate, config: DepthConfig) -> Float[Tensor, "n h w"]:
    """The depth that is believed of an estimate, metres, 0 where it is not. [n h w]"""
    depth = clean_depth(estimate.depth_m.float())
    zero = torch.zeros_like(depth)
    if config.min_confidence > 0:
        depth = torch.where(estimate.confidence >= config.min_confidence, depth, zero)
        depth = torch.where(torch.isfinite(estimate.depth_m), depth, zero)
    if config.sky != "estimated":
        far = zero if config.sky == "drop" else torch.full_like(depth, SKY_DEPTH_M)
        depth = torch.where(estimate.sky, far, depth)
    return depth


def _require_fitting(estimate: DepthEstimate, frames: Tensor) -> None:
    for name in ("depth_m", "confidence", "sky"):
        found = tuple(getattr(estimate, name).shape)
        if found != tuple(frames.shape[:3]):
            raise DepthError(f"the estimator's {name} must be {tuple(frames.shape[:3])} like its frames, found {found}")
