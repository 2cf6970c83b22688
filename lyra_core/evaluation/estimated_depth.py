"""Depth of generated videos as the rollout finds it: estimated after each chunk, in the scale of what is remembered.

    seeds = with_seed_depth(clips, estimator, config.depth)     # depth of the first frames, in the truth's scale
    found = EstimatedDepth(seeds, estimator, config)
    found.after_chunk(frames, last)                             # after each chunk

Many worlds side by side, each with its own memory: the calls are those of `lyra_core.video.rollout` (a test compares).

Legend: b worlds, t frames, h w pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.config.rollout import RolloutConfig
from lyra_core.config.video import DepthConfig
from lyra_core.depth import DepthEstimator
from lyra_core.procedural.clips import Clips
from lyra_core.values import CameraPath
from lyra_core.video.depth_cache import SKY_DEPTH_M, estimate_window, mask_depth, scale_views, window_frames
from lyra_core.video.memory import SpatialMemory
from lyra_core.video.world_state import to_bytes


def camera_path(clips: Clips, index: int) -> CameraPath:
    """The cameras of one clip."""
    height, width = clips.frames.shape[-2:]
    return CameraPath(
        world_to_cam=clips.world_to_cam[index],
        intrinsics=clips.intrinsics[index],
        image_height=int(height),
        image_width=int(width),
    )


def with_seed_depth(clips: Clips, estimator: DepthEstimator, config: DepthConfig) -> Clips:
    """Clips that know the depth of their first frames only, as estimated of each alone.

    One factor a clip brings it to the truth's scale. That is no help: a user's path is laid out in the seed's own
    estimated depth, so the scale is a choice of unit; here the cameras are given in metres.

    Args:
        clips: the depth of their first frames is the truth, the sky far away.
        estimator: asked for the first frames.
        config: which estimates are believed.
    """
    depth = torch.zeros_like(clips.depth_m)
    for index, frame in enumerate(to_bytes(clips.frames[:, 0].float()).cpu()):
        estimate = estimator.estimate(frame[None], camera_path(clips, index)[:1], None)
        believed = mask_depth(estimate, config)[0]
        truth = clips.depth_m[index, 0].cpu()
        both = (believed > 0) & ~estimate.sky[0] & (truth > 0) & (truth < SKY_DEPTH_M)
        ratio = float((truth[both] / believed[both]).median()) if bool(both.any()) else 1.0
        scaled = torch.where(estimate.sky[0], believed, believed * ratio)
        depth[index, 0] = scaled.to(depth)
    return replace(clips, depth_m=depth)


class EstimatedDepth:
    """What is believed of the depth of several growing videos.

    Attributes:
        depth_m: 0 where unknown. [b t h w]
    """

    def __init__(self, seeds: Clips, estimator: DepthEstimator, config: RolloutConfig) -> None:
        """Begin with the depth of the first frames, as `with_seed_depth` gives it."""
        self.estimator, self.config = estimator, config
        self.paths = [camera_path(seeds, index) for index in range(len(seeds.frames))]
        self.depth_m: Float[Tensor, "b t h w"] = seeds.depth_m.clone()
        height, width = (int(x) for x in seeds.depth_m.shape[-2:])
        self.memories = []
        for index, path in enumerate(self.paths):
            memory = SpatialMemory(height, width, config.memory, seeds.depth_m.device)
            memory.add([0], self.depth_m[index, :1], path.world_to_cam[:1], path.intrinsics[:1])
            self.memories.append(memory)

    def after_chunk(self, frames: Float[Tensor, "b t 3 h w"], last: int, chunk_frames: int) -> None:
        """Estimate and remember.

        Args:
            frames: videos in [-1, 1], made up to frame `last`.
            last: frame with which the chunk ends.
            chunk_frames: frames of a chunk.

        Raises:
            DepthError: the estimator found nothing.
        """
        window = window_frames(last, chunk_frames, self.config.depth)
        pictures = to_bytes(frames[:, window].float().flatten(0, 1)).cpu().unflatten(0, (len(frames), -1))
        for index, (path, memory) in enumerate(zip(self.paths, self.memories, strict=True)):
            cameras = path[window]
            views = scale_views(memory, cameras, self.config.depth)
            warp = self.config.conditioning.warp
            estimate = estimate_window(self.estimator, pictures[index], cameras, views, warp, self.config.depth)
            fresh = [i for i, frame in enumerate(window) if not bool(self.depth_m[index, frame].any())]
            at = [window[i] for i in fresh]
            self.depth_m[index, at] = estimate[fresh].to(self.depth_m)
            stored = [i for i in fresh if window[i] % memory.config.stride_frames == 0]
            if stored:
                ids = [window[i] for i in stored]
                memory.add(ids, estimate[stored], path.world_to_cam[ids], path.intrinsics[ids])
