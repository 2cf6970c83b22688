"""What turns one chunk of a video into geometry: one protocol, three implementations.

    ClipDepthLifter   the clip's own depth (exact, or generated with the video)     -> pixel footprints
    DepthLifter       any DepthEstimator, such as Depth Anything 3 with free weights -> pixel footprints
    HeadLifter        Depth Anything 3 with its Gaussian head                        -> the head's Gaussians

Shape legend: t frames of a chunk, h w pixels of the frames, n Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra_core.depth import DepthEstimator
from lyra_core.errors import DepthError, ReconstructionError
from lyra_core.gaussians.depth_anything.adapter import to_world
from lyra_core.gaussians.depth_anything.budget import Budget
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.rotation import invert_rigid
from lyra_core.values import CameraPath, Gaussians, VideoClip


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGaussians:
    """Gaussians that a network made, each in the camera frame of the frame it came from.

    Attributes:
        gaussians: OpenCV camera frame of the own frame, metres.
        frame: which frame of the chunk, rising. [n]
        spacing_m: distance to the next Gaussian of the same frame on a surface that faces the camera. [n]
    """

    gaussians: Gaussians
    frame: Int[Tensor, " n"]
    spacing_m: Float[Tensor, " n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """Geometry of one chunk.

    Attributes:
        depth_m: z-depth, 0 where unknown. [t h w] float32
        confidence: 0 to 1. [t h w] float32
        sky: [t h w] bool
        recovered: cameras found in the frames, brought to the requested ones, or None. [t 4 4] float64
        head: Gaussians, or None where pixels become Gaussians.
    """

    depth_m: Float[Tensor, "t h w"]
    confidence: Float[Tensor, "t h w"]
    sky: Bool[Tensor, "t h w"]
    recovered: Float[Tensor, "t 4 4"] | None = None
    head: HeadGaussians | None = None


@runtime_checkable
class Lifter(Protocol):
    """Turns a chunk into geometry.

    Attributes:
        name: for the report and for the keys of stored chunks; holds whatever changes the result.
        needs_baseline: True if the scale comes from cameras that move.
    """

    name: str
    needs_baseline: bool

    def lift(self, clip: VideoClip, reference_depth_m: Float[Tensor, "t h w"] | None, budget: Budget) -> Lift:
        """Geometry of one chunk of frames.

        Args:
            clip: the chunk's frames with their requested cameras.
            reference_depth_m: what earlier chunks found for the same frames, 0 where unknown, or None.
            budget: sizes of a pass; `views` is at least the number of frames.

        Raises:
            torch.OutOfMemoryError: the caller tries smaller chunks.
        """
        ...


class ClipDepthLifter:
    """Lifts with the depth the clip carries; metric by definition, so cameras may stand still."""

    name = "clip-depth"
    needs_baseline = False

    def lift(self, clip: VideoClip, reference_depth_m: Tensor | None, budget: Budget) -> Lift:  # noqa: ARG002
        """The clip's own layers.

        Raises:
            DepthError: the clip has no depth, or it holds NaN or infinity.
        """
        if clip.depth_m is None:
            raise DepthError("lifting by the clip's depth needs depth_m, found none; use DepthLifter or HeadLifter")
        sky = torch.zeros_like(clip.depth_m, dtype=torch.bool) if clip.sky is None else clip.sky
        confidence = (clip.depth_m > 0).float() if clip.depth_confidence is None else clip.depth_confidence
        return Lift(depth_m=clip.depth_m.float(), confidence=confidence.float(), sky=sky)


class DepthLifter:
    """Lifts with a depth estimator: with Apache-2.0 weights, nothing in the chain is restricted.

    Args:
        estimator: conditioned on the requested cameras.
        name: identifies the weights.
        needs_baseline: False for estimators that know metres without moving cameras.
    """

    def __init__(self, estimator: DepthEstimator, *, name: str, needs_baseline: bool = True) -> None:
        self._estimator = estimator
        self.name = f"depth-{name}"
        self.needs_baseline = needs_baseline

    def lift(self, clip: VideoClip, reference_depth_m: Tensor | None, budget: Budget) -> Lift:  # noqa: ARG002
        """Depth of the chunk's frames; the estimator measures its own memory."""
        estimate = self._estimator.estimate(clip.frames, clip.cameras, reference_depth_m)
        return Lift(
            depth_m=estimate.depth_m.float(),
            confidence=estimate.confidence.float(),
            sky=estimate.sky,
            recovered=None if estimate.cameras is None else estimate.cameras.world_to_cam,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLifterConfig:
    """Which of a head's Gaussians are kept.

    Attributes:
        stride: cell side in pixels of the network's input; one Gaussian a cell.
        border_share: margin left out on each side, where the head was never trained to be right.
        min_opacity: fainter ones are not even stored.
    """

    stride: int = 2
    border_share: float = 8 / 256
    min_opacity: float = 0.02


class HeadLifter:
    """Lifts with Depth Anything 3's Gaussian head.

    Args:
        estimator: a DepthAnythingEstimator whose network has the head.
        name: identifies the weights.
        config: what is kept.
    """

    needs_baseline = True

    def __init__(self, estimator: object, *, name: str, config: HeadLifterConfig = HeadLifterConfig()) -> None:
        from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
        from lyra_core.gaussians.depth_anything.model import NestedDepthAnything3

        if not isinstance(estimator, DepthAnythingEstimator):
            raise ReconstructionError(
                f"the Gaussian head belongs to a DepthAnythingEstimator, found {type(estimator).__name__}; "
                "use DepthLifter for other estimators"
            )
        self._estimator = estimator
        self._config = config
        self.name = f"head-{name}-{config.stride}-{config.border_share:g}-{config.min_opacity:g}"
        self.needs_baseline = not isinstance(estimator.model, NestedDepthAnything3)

    def lift(self, clip: VideoClip, reference_depth_m: Tensor | None, budget: Budget) -> Lift:
        """Depth and Gaussians of the chunk's frames in one pass."""
        from lyra_core.gaussians.depth_anything.estimator import to_frame_size

        scene = self._estimator.view(
            clip.frames, clip.cameras, reference_depth_m, gaussian_stride=self._config.stride, budget=budget
        )
        height, width = clip.frames.shape[1:3]
        depth, confidence, sky = to_frame_size(scene.prediction, slice(0, len(clip)), height, width)
        made = scene.gaussians("recovered").to("cpu")
        network_height, network_width = scene.prediction.depth.shape[1:]
        network = clip.cameras.resized(int(network_height), int(network_width))
        head = self._in_own_cameras(made, scene.recovered, network)
        return Lift(depth_m=depth, confidence=confidence, sky=sky, recovered=scene.recovered, head=head)

    def _in_own_cameras(self, made: Gaussians, recovered: Tensor, network: CameraPath) -> HeadGaussians:
        rows, columns = network.image_height // self._config.stride, network.image_width // self._config.stride
        if len(made) != len(recovered) * rows * columns:
            raise ReconstructionError(
                f"the Gaussian head must give {rows}x{columns} Gaussians for each of {len(recovered)} frames, "
                f"found {len(made)}"
            )
        margin_y, margin_x = round(rows * self._config.border_share), round(columns * self._config.border_share)
        inner = torch.zeros(rows, columns, dtype=torch.bool)
        inner[margin_y : rows - margin_y, margin_x : columns - margin_x] = True
        parts, frames, spacings = [], [], []
        for t in range(len(recovered)):
            own = made[t * rows * columns : (t + 1) * rows * columns]
            own = own[inner.flatten() & (own.opacities >= self._config.min_opacity)]
            local = to_world(own, rigid_similarity(recovered[t]))
            spacing = local.means[:, 2].clamp_min(0) * self._config.stride / float(network.intrinsics[t, 0, 0])
            parts.append(local)
            frames.append(torch.full((len(local),), t))
            spacings.append(spacing)
        return HeadGaussians(
            gaussians=Gaussians.concatenate(parts), frame=torch.cat(frames), spacing_m=torch.cat(spacings)
        )


def rigid_similarity(transform: Float[Tensor, "4 4"]) -> Similarity:
    """A rigid 4x4 transform as a similarity of scale 1."""
    transform = transform.detach().to("cpu", torch.float64)
    return Similarity(scale=1.0, rotation=transform[:3, :3].contiguous(), translation=transform[:3, 3].contiguous())


def place_in_world(
    head: HeadGaussians, frame: int, world_to_cam: Float[Tensor, "4 4"], scale: float
) -> tuple[Gaussians, Float[Tensor, " n"]]:
    """The Gaussians of one frame in the world, seen from a camera, their depths multiplied by a scale.

    Centres, sizes, orientations and view-dependent colours all follow.

    Returns:
        the Gaussians and their spacing in metres.
    """
    first, last = (int(torch.searchsorted(head.frame, torch.tensor(i))) for i in (frame, frame + 1))
    pose = rigid_similarity(invert_rigid(world_to_cam))
    similarity = Similarity(scale=scale, rotation=pose.rotation, translation=pose.translation)
    return to_world(head.gaussians[first:last], similarity), head.spacing_m[first:last] * scale
