"""One window's prediction in the world: its scale and place fixed by the requested cameras, by
depth, or by metres.

Shape legend: v views, h w pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError, DepthError, ReconstructionError
from lyra_core.gaussians.depth_anything.adapter import to_world
from lyra_core.gaussians.depth_anything.model import Prediction
from lyra_core.geometry.alignment import (
    Similarity,
    align_cameras,
    align_rigid,
    camera_centers,
    classify_motion,
    scale_from_overlap,
)
from lyra_core.values import CameraPath, Gaussians

Placement = Literal["requested", "recovered"]
ScaleSource = Literal["cameras", "reference depth", "metric network", "nothing"]

# A baseline below this share of the median depth says nothing about scale: half a pixel of parallax
# at 500 pixels.
MIN_BASELINE_RATIO = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneView:
    """One window's prediction, brought to the requested cameras' scale and place.

    Attributes:
        prediction: lengths in metres of the requested cameras, in the network's reference frame.
        placement: rigid transform from the network's frame to the world. scale 1
        requested: the cameras that were asked for, of the network's input size, or None.
        recovered: the network's cameras in the world. [v 4 4] float64
        scale_source: what fixed the scale: "cameras", "reference depth", "metric network" or
            "nothing".
    """

    prediction: Prediction
    placement: Similarity
    requested: CameraPath | None
    recovered: Float[Tensor, "v 4 4"]
    scale_source: ScaleSource

    def gaussians(self, cameras: Placement = "recovered") -> Gaussians:
        """Gaussians in the world, one for each cell of each view.

        Args:
            cameras: where to place them: the network's own cameras after alignment, or the
                requested ones. Both use the requested intrinsics where there are any. Either way
                they are made in the reference view's frame, as the weights were trained, and then
                moved.

        Raises:
            ReconstructionError: no Gaussian maps, or requested cameras wanted where none were
                given.
        """
        intrinsics = None
        if self.requested is not None:
            intrinsics = self.requested.intrinsics.to(self.prediction.depth)
        w2c = None
        if cameras == "requested":
            if self.requested is None:
                raise ReconstructionError(
                    "Gaussians on the requested cameras need cameras, found none; use the recovered ones"
                )
            w2c = self.placement.inverse().apply_to_cameras(self.requested.world_to_cam)
            w2c = w2c.to(self.prediction.depth)
        return to_world(self.prediction.gaussians(w2c, intrinsics), self.placement)


def place(
    prediction: Prediction,
    requested: CameraPath | None,
    reference_depth_m: Float[Tensor, "v h w"] | None,
) -> SceneView:
    """Bring a prediction to the requested cameras' scale and place.

    The scale comes from the cameras' baselines, measured against the network's own; where they do
    not move enough, from the reference depth; else the metric network has set it already. A
    prediction without requested cameras stands in the frame of its first camera.

    Args:
        prediction: as the network returned it.
        requested: cameras of the prediction's size, or None.
        reference_depth_m: 0 where unknown, or None. [v h w]

    Raises:
        CameraPathError: cameras that do not move, and nothing else to fix the scale.
        DepthError: reference depth that shares too few pixels.
        ReconstructionError: a prediction without cameras.
    """
    factor, source = _find_scale(prediction, requested, reference_depth_m)
    prediction = prediction.scaled(factor)
    if prediction.world_to_cam is None:
        raise ReconstructionError("the any-view network predicts cameras, found none")
    own = prediction.world_to_cam.cpu().double()
    target = torch.eye(4, dtype=torch.float64)[None] if requested is None else requested.world_to_cam
    placement = align_rigid(own[: len(target)], target)
    return SceneView(
        prediction=prediction,
        placement=placement,
        requested=requested,
        recovered=placement.apply_to_cameras(own),
        scale_source=source,
    )


def _find_scale(
    prediction: Prediction, requested: CameraPath | None, reference: Tensor | None
) -> tuple[float, ScaleSource]:
    weights = torch.ones_like(prediction.depth)
    if prediction.confidence is not None:
        weights = to_unit_confidence(prediction.confidence)
    if requested is not None and prediction.world_to_cam is not None:
        own = prediction.world_to_cam.cpu().double()
        if _baselines_tell_scale(own, requested.world_to_cam, float(prediction.depth.median())):
            # Noise is in the network's cameras, so they are regressed on the requested ones and not
            # the reverse.
            fit = align_cameras(requested.world_to_cam, own)
            return 1.0 / fit.similarity.scale, "cameras"
    if reference is not None and bool((reference > 0).any()):
        solid = weights if prediction.sky is None else weights * ~prediction.sky
        return scale_from_overlap(prediction.depth, reference, solid), "reference depth"
    if prediction.is_metric:
        return 1.0, "metric network"
    if requested is not None:
        centers = camera_centers(requested.world_to_cam)
        raise CameraPathError(
            f"metres need cameras that move, a reference depth or a metric network; found "
            f"{len(centers)} cameras within "
            f"{float((centers - centers[0]).norm(dim=-1).max()):.2g} m of each "
            f"other; move them, pass reference_depth_m, or nest the network with the metric one"
        )
    return 1.0, "nothing"


def _baselines_tell_scale(own: Tensor, requested: Tensor, median_depth: float) -> bool:
    if classify_motion(camera_centers(requested)) == "static":
        return False
    centers = camera_centers(own)
    extent = float((centers - centers.mean(0)).norm(dim=-1).max())
    return extent > MIN_BASELINE_RATIO * median_depth


def require_depth(prediction: Prediction) -> None:
    """Refuse a prediction nobody can use.

    Raises:
        DepthError: NaN or infinity, no positive pixel, or nothing but sky.
    """
    finite = torch.isfinite(prediction.depth)
    if not finite.all():
        bad = (~finite.flatten(1).all(1)).nonzero().flatten().tolist()
        raise DepthError(
            f"depth must be finite, found NaN or infinity in views {bad[:8]}; check the weights, "
            "or run the "
            f"backbone without bfloat16"
        )
    if not (prediction.depth > 0).any():
        raise DepthError("depth needs a positive pixel, found none; check the weights")
    if prediction.sky is not None and prediction.sky.all():
        raise DepthError("every pixel is sky, so there is no scale to find; give frames that see something")


def to_unit_confidence(confidence: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The network's 1..inf to 0..1: 1 - 1/c, so that c = 2 (a logit of 0) becomes one half."""
    return 1.0 - 1.0 / confidence
