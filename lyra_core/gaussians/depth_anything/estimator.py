"""Depth Anything 3 as the project's depth estimator, and as the source of Gaussians for one chunk
of a video.

    frames, requested cameras --> windows that fit memory --> network, conditioned on the cameras
       --> scale of the requested path --> depth in metres, recovered cameras, Gaussians in the
       world

Shape legend: t frames of a video, v views of one window, h w pixels of the frames, p q of the
network's input.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.depth import DepthEstimate
from lyra_core.errors import CameraPathError, DepthError, FrameError, ReconstructionError
from lyra_core.gaussians.depth_anything.budget import Budget, device_budget, run_within
from lyra_core.gaussians.depth_anything.camera import normalise_cameras
from lyra_core.gaussians.depth_anything.model import (
    DepthAnything3,
    InferenceOptions,
    NestedDepthAnything3,
    Prediction,
)
from lyra_core.gaussians.depth_anything.preprocess import PROCESS_SIZE, network_size, preprocess
from lyra_core.gaussians.depth_anything.scene import (
    SceneView,
    place,
    require_depth,
    to_unit_confidence,
)
from lyra_core.geometry.alignment import Similarity, align_rigid
from lyra_core.values import CameraPath

WINDOW_OVERLAP = 8
FURTHEST_M = 1e4


class DepthAnythingEstimator:
    """Implements lyra_core.depth.DepthEstimator with a Depth Anything 3 network.

    Args:
        model: the any-view or the nested network, in eval mode, on its device.
        process_size: longest side of the network's input, pixels; None keeps the frames' own, rounded to patches.
        budget: sizes of a pass; None measures the device's free memory at every call.
        overlap: frames that neighbouring windows share when a video does not fit into one pass.
        home: brings weights that wait in host memory; None where they are on their device.

    Raises:
        ReconstructionError: a metric single-view network, which knows no views.
    """

    def __init__(
        self,
        model: DepthAnything3 | NestedDepthAnything3,
        *,
        process_size: int | None = PROCESS_SIZE,
        budget: Budget | None = None,
        overlap: int = WINDOW_OVERLAP,
        home: AbstractContextManager[None] | None = None,
    ) -> None:
        if isinstance(model, DepthAnything3) and not model.config.any_view:
            raise ReconstructionError(
                "the depth estimator needs an any-view or nested network, found the metric one alone; nest it"
            )
        self.model = model
        self.process_size = process_size
        self.budget = budget
        self.overlap = overlap
        self.home = home or nullcontext()

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.model.parameters()).device

    def estimate(
        self,
        frames: UInt8[Tensor, "t h w 3"],
        cameras: CameraPath | None,
        reference_depth_m: Float[Tensor, "t h w"] | None = None,
    ) -> DepthEstimate:
        """Depth of a window of frames.

        The scale is that of the requested cameras' baselines. Where they do not move enough, it
        comes from reference_depth_m, else from the metric network. A lone image of a network that
        is not metric keeps the network's own unit.

        Args:
            frames: sRGB. [t h w 3]
            cameras: requested cameras of the frames' size, or None.
            reference_depth_m: depth already believed, 0 where unknown, or None. [t h w]

        Returns:
            depth at the frames' size on the CPU; recovered cameras in the requested ones' frame, or
            in the first frame's if none were given; intrinsics only if none were given.

        Raises:
            FrameError: no frame.
            CameraPathError: cameras of another count or size, or that do not move with nothing else
                to fix the scale.
            DepthError: depth that is not finite, or nothing but sky.
            OutOfMemoryError: the smallest budget does not fit.
        """
        self._require(frames, cameras, reference_depth_m)

        def run(budget: Budget) -> DepthEstimate:
            return self._estimate_windows(frames, cameras, reference_depth_m, budget)

        with self.home:
            return run_within(self._budget(frames), run)

    def view(
        self,
        frames: UInt8[Tensor, "t h w 3"],
        cameras: CameraPath | None,
        reference_depth_m: Float[Tensor, "t h w"] | None = None,
        *,
        gaussian_stride: int | None = None,
        budget: Budget | None = None,
    ) -> SceneView:
        """One pass over all frames together: what a chunk of a reconstruction needs.

        Args:
            frames: sRGB; at most as many as fit into one pass. [t h w 3]
            cameras: requested cameras of the frames' size, or None.
            reference_depth_m: as in estimate. [t h w]
            gaussian_stride: cell side in pixels of the network's input for Gaussians, or None.
            budget: slice sizes; None takes the estimator's.

        Raises:
            as estimate, and ReconstructionError if Gaussians are wanted of a network without that
            head. Memory errors of torch pass through: the caller chooses smaller chunks.
        """
        self._require(frames, cameras, reference_depth_m)
        with self.home:
            return self._view(frames, cameras, reference_depth_m, gaussian_stride, budget)

    def _view(
        self,
        frames: Tensor,
        cameras: CameraPath | None,
        reference_depth_m: Tensor | None,
        gaussian_stride: int | None,
        budget: Budget | None,
    ) -> SceneView:
        budget = budget or self._budget(frames)
        images = preprocess(frames.to(self.device), self._longest(frames))
        height, width = (int(x) for x in images.shape[2:])
        requested = None if cameras is None else cameras.resized(height, width)
        options = InferenceOptions(gaussian_stride=gaussian_stride, views_per_slice=budget.views_per_slice)
        with torch.no_grad():
            prediction = self._predict(images, requested, options)
            require_depth(prediction)
            reference = None
            if reference_depth_m is not None:
                reference = resize_known(reference_depth_m.to(self.device), height, width)
            return place(prediction, requested, reference)

    def _predict(self, images: Tensor, requested: CameraPath | None, options: InferenceOptions) -> Prediction:
        if requested is None:
            return self.model(images, options=options)
        normalised, _ = normalise_cameras(requested.world_to_cam)
        return self.model(images, normalised.to(images), requested.intrinsics.to(images), options)

    def _longest(self, frames: Tensor) -> int:
        return max(frames.shape[1:3]) if self.process_size is None else self.process_size

    def _budget(self, frames: Tensor) -> Budget:
        if self.budget is not None:
            return self.budget
        height, width = network_size(frames.shape[1], frames.shape[2], self._longest(frames))
        return device_budget(self.device, height, width, self.model.config)

    def _estimate_windows(
        self,
        frames: Tensor,
        cameras: CameraPath | None,
        reference: Tensor | None,
        budget: Budget,
    ) -> DepthEstimate:
        count, (height, width) = len(frames), frames.shape[1:3]
        spans = windows(count, budget.views, self.overlap)
        depth = torch.zeros(count, height, width)
        confidence = torch.zeros(count, height, width)
        sky = torch.zeros(count, height, width, dtype=torch.bool)
        recovered = torch.zeros(count, 4, 4, dtype=torch.float64)
        intrinsics = torch.zeros(count, 3, 3, dtype=torch.float64)
        done = 0
        for span in spans:
            known = depth[span] if done else None
            known = _merge_reference(None if reference is None else reference[span], known)
            scene = self.view(
                frames[span],
                None if cameras is None else cameras[span],
                known,
                budget=budget,
            )
            link = Similarity.identity()
            if cameras is None and done:
                shared = done - span.start
                link = align_rigid(scene.recovered[:shared], recovered[span.start : done])
            new = slice(done, span.stop)
            own = slice(done - span.start, span.stop - span.start)
            depth[new], confidence[new], sky[new] = to_frame_size(scene.prediction, own, height, width)
            recovered[new] = link.apply_to_cameras(scene.recovered)[own]
            intrinsics[new] = _frame_intrinsics(scene.prediction, height, width)[own]
            done = span.stop
        return DepthEstimate(
            depth_m=depth,
            confidence=confidence,
            sky=sky,
            cameras=CameraPath(
                world_to_cam=recovered,
                intrinsics=intrinsics,
                image_height=height,
                image_width=width,
                name="recovered",
            ),
            intrinsics=intrinsics if cameras is None else None,
        )

    def _require(self, frames: Tensor, cameras: CameraPath | None, reference: Tensor | None) -> None:
        if len(frames) < 1:
            raise FrameError("depth estimation needs at least one frame, found none")
        size = tuple(frames.shape[1:3])
        if cameras is not None:
            if len(cameras) != len(frames):
                raise CameraPathError(
                    f"depth estimation needs one camera a frame: {len(frames)} frames, {len(cameras)} cameras"
                )
            if (cameras.image_height, cameras.image_width) != size:
                raise CameraPathError(
                    f"cameras are for {cameras.image_width}x{cameras.image_height} images, frames "
                    "are "
                    f"{size[1]}x{size[0]}; call cameras.resized({size[0]}, {size[1]})"
                )
        if reference is not None and reference.shape != frames.shape[:3]:
            raise DepthError(f"reference depth must be {tuple(frames.shape[:3])}, found {tuple(reference.shape)}")


def windows(count: int, size: int, overlap: int) -> list[slice]:
    """Windows of `size` frames that cover `count`, neighbours sharing at least `overlap` (or size -
    1) frames.
    """
    if count <= size:
        return [slice(0, count)]
    step = max(1, size - overlap)
    starts = [*range(0, count - size, step), count - size]
    return [slice(start, start + size) for start in starts]


def to_frame_size(
    prediction: Prediction, which: slice, height: int, width: int
) -> tuple[Float[Tensor, "v h w"], Float[Tensor, "v h w"], Bool[Tensor, "v h w"]]:
    """Depth, confidence 0..1 and sky of some views, at the frames' size, on the CPU."""

    def back(x: Tensor) -> Tensor:
        x = functional.interpolate(x[which, None].float(), size=(height, width), mode="bilinear", align_corners=False)
        return x[:, 0].cpu()

    depth = back(prediction.depth).clamp(0.0, FURTHEST_M)
    confidence = prediction.confidence
    unit = torch.ones_like(depth) if confidence is None else back(to_unit_confidence(confidence))
    if prediction.sky is None:
        return depth, unit, torch.zeros_like(depth, dtype=torch.bool)
    return depth, unit, back(prediction.sky.float()) >= 0.5


def resize_known(depth: Float[Tensor, "v h w"], height: int, width: int) -> Float[Tensor, "v p q"]:
    """Depth at another size without mixing known with unknown: the nearest pixel's."""
    return functional.interpolate(depth[:, None], size=(height, width), mode="nearest-exact")[:, 0]


def _merge_reference(given: Tensor | None, known: Tensor | None) -> Tensor | None:
    # What earlier windows of this call found takes precedence over what the caller believed.
    if given is None or known is None:
        return given if known is None else known
    return torch.where(known > 0, known, given.cpu())


def _frame_intrinsics(prediction: Prediction, height: int, width: int) -> Tensor:
    if prediction.intrinsics is None:
        raise DepthError("the any-view network predicts intrinsics, found none")
    rows, cols = prediction.depth.shape[1:]
    scale = torch.tensor([width / cols, height / rows, 1.0], dtype=torch.float64)
    return prediction.intrinsics.cpu().double() * scale[:, None]
