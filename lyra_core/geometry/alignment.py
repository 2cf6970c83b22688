"""Similarity transforms between two reconstructions of one scene: fit to points, to cameras, to
both, or to depth.

All fits run in float64. Robustness comes from trimming with fixed counts, never from random
samples, so the same input gives the same transform on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import CameraPathError, DepthError, ReconstructionError
from lyra_core.geometry.rotation import nearest_rotation, rotation_angle_deg

Motion = Literal["static", "collinear", "general"]

# Spread of camera centres, relative to the largest: below, a path counts as a line.
COLLINEAR_RATIO = 1e-2
# Extent of a path relative to its distance from the origin, below which it is numerical noise.
STATIC_EXTENT = 1e-6
KEPT_SHARE = 0.8
REFITS = 3
MIN_CAMERAS_TO_TRIM = 10
# Say of the orientations in the rotation of a camera alignment, next to 1 for the centres.
ORIENTATION_SHARE = 1.0
MIN_OVERLAP_PIXELS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """target = scale * rotation @ source + translation.

    Attributes:
        scale: length of a source unit in the target.
        rotation: [3 3] float64
        translation: in target units. [3] float64
    """

    scale: float
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, " 3"]

    @classmethod
    def identity(cls) -> Similarity:
        """The transform that changes nothing."""
        return cls(
            scale=1.0,
            rotation=torch.eye(3, dtype=torch.float64),
            translation=torch.zeros(3, dtype=torch.float64),
        )

    def apply(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points of the source frame in the target frame, in the points' precision and on their
        device.
        """
        rotation, translation = self.rotation.to(points), self.translation.to(points)
        return self.scale * (points @ rotation.mT) + translation

    def apply_to_cameras(self, world_to_cam: Float[Tensor, "t 4 4"]) -> Float[Tensor, "t 4 4"]:
        """The same cameras standing in the target frame; image depth grows by `scale`. float64"""
        w2c = world_to_cam.detach().to("cpu", torch.float64)
        centers = camera_centers(w2c)
        out = w2c.clone()
        out[:, :3, :3] = w2c[:, :3, :3] @ self.rotation.mT
        out[:, :3, 3] = -(out[:, :3, :3] @ self.apply(centers)[..., None])[..., 0]
        return out

    def inverse(self) -> Similarity:
        """Target to source."""
        return Similarity(
            scale=1.0 / self.scale,
            rotation=self.rotation.mT.contiguous(),
            translation=-(self.rotation.mT @ self.translation) / self.scale,
        )

    def after(self, first: Similarity) -> Similarity:
        """The transform that applies `first` and then this one."""
        return Similarity(
            scale=self.scale * first.scale,
            rotation=self.rotation @ first.rotation,
            translation=self.scale * (self.rotation @ first.translation) + self.translation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraAlignment:
    """A similarity between two sets of the same cameras, and what their motion could determine.

    Attributes:
        similarity: source to target; its scale is 1 if the motion is static.
        motion: "general"; "collinear": the roll comes from the cameras' orientations alone;
            "static": so does the whole rotation, and the scale is unknown.
    """

    similarity: Similarity
    motion: Motion


def camera_centers(world_to_cam: Float[Tensor, "t 4 4"]) -> Float[Tensor, "t 3"]:
    """Centres of rigid cameras, without a general inverse."""
    return -(world_to_cam[:, :3, :3].mT @ world_to_cam[:, :3, 3:])[..., 0]


def fit_similarity(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"] | None = None,
) -> Similarity:
    """The similarity of least weighted squared distance (Umeyama, PAMI 1991, with weights).

    Args:
        source: points. [n 3]
        target: the same points in the other frame. [n 3]
        weights: not negative, of any sum. [n]

    Raises:
        ReconstructionError: fewer than three usable pairs, values that are not finite, or points in
            one place.
    """
    source, target = (x.detach().to("cpu", torch.float64) for x in (source, target))
    w = torch.ones(len(source), dtype=torch.float64) if weights is None else weights.detach().to(source)
    if not (torch.isfinite(source).all() and torch.isfinite(target).all() and torch.isfinite(w).all()):
        raise ReconstructionError("a similarity needs finite points and weights, found NaN or infinity; mask them")
    if int((w > 0).sum()) < 3:
        raise ReconstructionError(f"a similarity needs 3 weighted pairs of points, found {int((w > 0).sum())}")
    w = (w / w.sum())[:, None]
    mean_source, mean_target = (w * source).sum(0), (w * target).sum(0)
    a, b = source - mean_source, target - mean_target
    variance = float((w * a * a).sum())
    if variance <= STATIC_EXTENT**2 * float(1e-12 + (mean_source**2).sum()):
        raise ReconstructionError(
            "a similarity needs points that differ, found all of them in one place; add points or use orientations"
        )
    u, spread, vh = torch.linalg.svd((w * b).mT @ a)
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    rotation = (u * sign) @ vh
    scale = float((spread * sign).sum()) / variance
    if scale <= 0:
        raise ReconstructionError(
            "a similarity needs points that agree in shape, found none better than scale 0; check the pairing"
        )
    return Similarity(scale=scale, rotation=rotation, translation=mean_target - scale * rotation @ mean_source)


def align_cameras(
    source_world_to_cam: Float[Tensor, "t 4 4"], target_world_to_cam: Float[Tensor, "u 4 4"]
) -> CameraAlignment:
    """The similarity between two sets of the same cameras, for any motion.

    The rotation is the one closest to both the correlation of the centres (Umeyama) and the mean of
    the cameras' own turns (chordal mean, Hartley et al. 2013, section 5.3); on a straight path the
    second alone fixes the roll. With ten or more cameras the worst fifth of the centres is left
    out.

    Raises:
        CameraPathError: unequal counts, no camera, or poses that are not finite.
    """
    source, target = (x.detach().to("cpu", torch.float64) for x in (source_world_to_cam, target_world_to_cam))
    if source.shape != target.shape or len(source) < 1:
        raise CameraPathError(
            f"aligning cameras needs two paths of one length, found {len(source)} and {len(target)} cameras"
        )
    if not (torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise CameraPathError(
            "aligning cameras needs finite poses, found NaN or infinity; check the frames they were estimated from"
        )
    motions = (classify_motion(camera_centers(x)) for x in (source, target))
    motion = min(motions, key=("static", "collinear", "general").index)
    keep = torch.ones(len(source), dtype=torch.bool)
    fit = _fit_camera_frames(source, target, keep, motion)
    for _ in range(REFITS if len(source) >= MIN_CAMERAS_TO_TRIM else 0):
        residual = (fit.apply(camera_centers(source)) - camera_centers(target)).norm(dim=-1)
        keep = residual <= quantile(residual, KEPT_SHARE)
        fit = _fit_camera_frames(source, target, keep, motion)
    return CameraAlignment(similarity=fit, motion=motion)


def _fit_camera_frames(source: Tensor, target: Tensor, keep: Tensor, motion: Motion) -> Similarity:
    source, target = source[keep], target[keep]
    a, b = camera_centers(source), camera_centers(target)
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    turn = (target[:, :3, :3].mT @ source[:, :3, :3]).mean(0)
    if motion == "static":
        rotation = nearest_rotation(turn)
        return Similarity(scale=1.0, rotation=rotation, translation=mean_b - rotation @ mean_a)
    correlation = b.mT @ a / (a.norm() * b.norm())
    rotation = nearest_rotation(correlation + ORIENTATION_SHARE * turn)
    scale = float(((a @ rotation.mT) * b).sum() / (a * a).sum())
    if scale <= 0:
        # Orientations and centres disagree by over 90 degrees: only the lengths can be trusted.
        scale = float(b.norm() / a.norm())
    return Similarity(scale=scale, rotation=rotation, translation=mean_b - scale * rotation @ mean_a)


def align_rigid(source_world_to_cam: Float[Tensor, "t 4 4"], target_world_to_cam: Float[Tensor, "t 4 4"]) -> Similarity:
    """As align_cameras for two sets of cameras in the same unit: the scale stays 1."""
    rotation = align_cameras(source_world_to_cam, target_world_to_cam).similarity.rotation
    a, b = (camera_centers(x.detach().to(rotation)) for x in (source_world_to_cam, target_world_to_cam))
    # The median is not moved by a few cameras that went astray.
    offsets = b - a @ rotation.mT
    return Similarity(scale=1.0, rotation=rotation, translation=offsets.median(0).values)


def classify_motion(centers: Float[Tensor, "t 3"]) -> Motion:
    """Whether camera centres stay in one place, lie on a line, or span more."""
    spread = torch.linalg.svdvals(centers - centers.mean(0))
    if len(centers) < 2 or float(spread[0]) <= STATIC_EXTENT * (1.0 + float(centers.abs().max())):
        return "static"
    if len(centers) < 3 or float(spread[1]) < COLLINEAR_RATIO * float(spread[0]):
        return "collinear"
    return "general"


def scale_from_overlap(
    depth: Float[Tensor, "*shape"],
    reference_depth: Float[Tensor, "*shape"],
    weights: Float[Tensor, "*shape"],
) -> float:
    """The factor that brings depth onto a reference: weighted median of log ratios over pixels
    known to both.

    Args:
        depth: 0 or not finite where unknown. [*shape]
        reference_depth: likewise. [*shape]
        weights: not negative. [*shape]

    Raises:
        DepthError: fewer than 64 common pixels.
    """
    valid = torch.isfinite(depth) & torch.isfinite(reference_depth) & (depth > 0) & (reference_depth > 0)
    valid &= torch.isfinite(weights) & (weights > 0)
    if int(valid.sum()) < MIN_OVERLAP_PIXELS:
        raise DepthError(
            f"fixing the scale needs {MIN_OVERLAP_PIXELS} pixels known to both depth maps, found "
            f"{int(valid.sum())}; choose frames that see the same place, or a path that moves"
        )
    ratios = (reference_depth[valid].double() / depth[valid].double()).log()
    return float(weighted_median(ratios, weights[valid].double()).exp())


def weighted_median(values: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The smallest value at which half of the weight is reached."""
    values, order = values.sort(stable=True)
    reached = weights[order].cumsum(0)
    return values[min(int(torch.searchsorted(reached, reached[-1] / 2)), len(values) - 1)]


def quantile(values: Float[Tensor, " n"], q: float) -> Tensor:
    """As torch.quantile with linear interpolation, for any number of values (torch stops at 16
    million).
    """
    ordered = values.flatten().sort().values
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], position - low)


def pose_residual(
    requested_world_to_cam: Float[Tensor, "t 4 4"], recovered_world_to_cam: Float[Tensor, "t 4 4"]
) -> tuple[float, float]:
    """How far recovered cameras are from the requested ones, once aligned by the best similarity.

    Args:
        requested_world_to_cam: [t 4 4]
        recovered_world_to_cam: in any frame and scale. [t 4 4]

    Returns:
        median rotation error in degrees, and median error of the centres in percent of the
        requested path's length (0 if the request does not move: there is no length to compare
        with).
    """
    fit = align_cameras(recovered_world_to_cam, requested_world_to_cam).similarity
    aligned = fit.apply_to_cameras(recovered_world_to_cam)
    wanted = requested_world_to_cam.detach().to("cpu", torch.float64)
    relative = aligned[:, :3, :3] @ wanted[:, :3, :3].mT
    rotation_deg = float(rotation_angle_deg(relative).median())
    centers = camera_centers(wanted)
    length = float((centers[1:] - centers[:-1]).norm(dim=-1).sum())
    if classify_motion(centers) == "static":
        return rotation_deg, 0.0
    error = (camera_centers(aligned) - centers).norm(dim=-1).median()
    return rotation_deg, 100.0 * float(error) / length
