"""The one protocol by which depth enters: learned estimators, the baseline's and ground truth all look the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lyra_core.values import CameraPath


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthEstimate:
    """Depth of some frames.

    Attributes:
        depth_m: z-depth in metres (OpenCV camera frame), 0 where unknown. [t h w] float32
        confidence: 0 to 1. [t h w] float32
        sky: True where nothing is near. [t h w] bool
        cameras: cameras recovered from the frames in the frame of the known ones, or None.
        intrinsics: estimated where no camera was known, pixels. [t 3 3], or None
    """

    depth_m: Float[Tensor, "t h w"]
    confidence: Float[Tensor, "t h w"]
    sky: Bool[Tensor, "t h w"]
    cameras: CameraPath | None = None
    intrinsics: Float[Tensor, "t 3 3"] | None = None


@runtime_checkable
class DepthEstimator(Protocol):
    """Estimates depth for one window of frames.

    `cameras` are known (requested) cameras for the frames, or None for a single unposed image.
    `reference_depth_m` [t h w] (0 = unknown), where given, is what is already believed of the same pixels
    (warped memory): an implementation may use it to fix its scale.
    """

    def estimate(
        self,
        frames: UInt8[Tensor, "t h w 3"],
        cameras: CameraPath | None,
        reference_depth_m: Float[Tensor, "t h w"] | None = None,
    ) -> DepthEstimate:
        """Depth of the frames, z in metres."""
        ...
