"""The second half of a reconstruction: read the chunks back one by one and add their frames to one bounded set.

Shape legend: t keyframes, h w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.backing import Anchor
from lyra_core.gaussians.chunked_lift import LiftedVideo, Progress
from lyra_core.gaussians.clip_source import ClipSource
from lyra_core.gaussians.coarsen import PointSet
from lyra_core.gaussians.duplicates import DuplicateConfig, View
from lyra_core.gaussians.fuse import FusedSet, FusionCounts, solve_scales
from lyra_core.gaussians.lifters import Lift, place_in_world
from lyra_core.gaussians.pixel_footprint import FootprintConfig
from lyra_core.gaussians.prune import shrunk_view
from lyra_core.geometry.alignment import Similarity
from lyra_core.geometry.camera import pixel_centers
from lyra_core.geometry.rotation import invert_rigid
from lyra_core.values import CameraPath

JUDGE_COLUMNS = 160  # width of the small depth maps kept to find floaters
# Beside a depth edge a pixel's colour mixes two surfaces: any other view of the place replaces it.
EDGE_RATIO = 0.1
EDGE_TRUST = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedFusionConfig:
    """How chunks become one set; fields as in ReconstructionConfig."""

    max_gaussians: int
    duplicates: DuplicateConfig = field(default_factory=DuplicateConfig)
    footprint: FootprintConfig = field(default_factory=FootprintConfig)
    sky: Literal["shell", "drop"] = "shell"
    sky_ratio: float = 3.0
    judge_views: int = 32
    anchor_views: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """All chunks as one set.

    Attributes:
        points: Gaussians without duplicates.
        judges: small depth maps of some frames, against which floaters are found.
        anchors: some keyframes at full size, against which holes are found.
        sky_m: distance of the shell that carries the sky, or of what is far where there is none.
        scales: factor of each chunk's depth.
        counts: what happened on the way.
    """

    points: PointSet
    judges: list[View]
    anchors: list[Anchor]
    sky_m: float
    scales: list[float]
    counts: FusionCounts


def fuse_chunks(
    source: ClipSource,
    lifted: LiftedVideo,
    cameras: CameraPath,
    config: ChunkedFusionConfig,
    on_progress: Progress | None = None,
) -> Fusion:
    """Add every keyframe once, in order of time, from the chunk that owns it.

    Args:
        source: the video, for colours.
        lifted: its chunks.
        cameras: of the keyframes, one each.
        config: limits and thresholds.
        on_progress: called with ("fuse", keyframes done, keyframes).

    Raises:
        ReconstructionError: nothing was added.
    """
    scales = solve_scales(lifted.log_ratios)
    shell = Shell.around(cameras, config.sky_ratio * lifted.far_m) if config.sky == "shell" else None
    fused = FusedSet(config.max_gaussians, config.duplicates, config.footprint)
    count = len(lifted.keyframes)
    judged = set(evenly(count, config.judge_views).tolist())
    anchored = set(evenly(count, config.anchor_views).tolist()) if config.anchor_views else set()
    judges: list[View] = []
    anchors: list[Anchor] = []
    for k, lift in enumerate(lifted.lifts()):
        moved = _rescaled_cameras(cameras, lifted, k, scales[k])
        for i in range(lifted.owned[k].start, lifted.owned[k].stop):
            local, frame = i - lifted.chunks[k].start, int(lifted.keyframes[i])
            view = _view(lift, local, scales[k], moved[i], cameras.intrinsics[i], shell)
            _add_frame(fused, source, frame, lift, local, view, scales[k])
            if i in anchored:
                anchors.append(Anchor(frame=frame, view=view, sky=lift.sky[local]))
            if i in judged:
                judges.append(shrunk_view(view, max(1, view.depth_m.shape[1] // JUDGE_COLUMNS)))
            if on_progress is not None:
                on_progress("fuse", i + 1, count)
    if fused.points is None or len(fused.points) == 0:
        raise ReconstructionError(
            f"no Gaussian could be made from {count} keyframes: {fused.counts.non_finite} were not finite; "
            "check depth, confidence and cameras"
        )
    return Fusion(
        points=fused.points,
        judges=judges,
        anchors=anchors,
        sky_m=config.sky_ratio * lifted.far_m if shell is None else shell.radius_m,
        scales=scales,
        counts=fused.counts,
    )


def _add_frame(
    fused: FusedSet, source: ClipSource, frame: int, lift: Lift, local: int, view: View, scale: float
) -> None:
    if lift.head is not None:
        made, spacing = place_in_world(lift.head, local, view.world_to_cam, scale)
        fused.add_gaussians(made, spacing, view, ~lift.sky[local])
        # The head knows no sky; its pixels go to the shell like everybody's.
        view = replace(view, depth_m=torch.where(lift.sky[local], view.depth_m, 0.0))
    image = source.window(torch.tensor([frame])).frames[0]
    fused.add_pixels(image, view)


def _rescaled_cameras(cameras: CameraPath, lifted: LiftedVideo, k: int, scale: float) -> Float[Tensor, "t 4 4"]:
    """Cameras of a chunk whose lengths were off by a factor: recovered ones follow its depth, requested stay."""
    if lifted.recovered is None or not torch.equal(cameras.world_to_cam, lifted.recovered):
        return cameras.world_to_cam
    center = cameras[lifted.owned[k]].centers_m.mean(0)
    about = Similarity(scale=scale, rotation=torch.eye(3, dtype=torch.float64), translation=(1.0 - scale) * center)
    return about.apply_to_cameras(cameras.world_to_cam)


def _view(lift: Lift, local: int, scale: float, world_to_cam: Tensor, intrinsics: Tensor, shell: Shell | None) -> View:
    depth, confidence, sky = lift.depth_m[local] * scale, lift.confidence[local], lift.sky[local]
    is_shell = None
    if shell is None:
        depth = torch.where(sky, 0.0, depth)
    else:
        far = shell.depth_m(world_to_cam, intrinsics, *depth.shape)
        is_shell = sky | (depth > far)
        depth = torch.where(is_shell, far, depth)
        # Networks are unsure of sky by training; here it is as sure as anything.
        confidence = torch.where(sky, 1.0, confidence)
    confidence = torch.where(beside_edge(depth, EDGE_RATIO), EDGE_TRUST * confidence, confidence)
    return View(
        depth_m=depth, confidence=confidence, world_to_cam=world_to_cam, intrinsics=intrinsics, is_shell=is_shell
    )


def beside_edge(depth_m: Float[Tensor, "h w"], ratio: float) -> Bool[Tensor, "h w"]:
    """Pixels whose depth jumps to a direct neighbour: their colour is a mixture of both surfaces."""
    beside = torch.zeros_like(depth_m, dtype=torch.bool)
    inverse = torch.where(depth_m > 0, 1.0 / depth_m, 0.0)
    for axis in (0, 1):
        size = depth_m.shape[axis] - 1
        first, second = inverse.narrow(axis, 0, size), inverse.narrow(axis, 1, size)
        # Differences of inverse depth are small on any surface that fills several pixels, however slanted.
        jump = (first - second).abs() > ratio * torch.maximum(first, second)
        beside.narrow(axis, 0, size).logical_or_(jump)
        beside.narrow(axis, 1, size).logical_or_(jump)
    return beside


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """A sphere around the path that carries the sky.

    Attributes:
        center: [3] float64
        radius_m: large enough to hold all cameras.
    """

    center: Float[Tensor, " 3"]
    radius_m: float

    @classmethod
    def around(cls, cameras: CameraPath, distance_m: float) -> Shell:
        """A sphere that keeps a distance from every camera."""
        center = cameras.centers_m.mean(0)
        extent = float((cameras.centers_m - center).norm(dim=-1).max())
        return cls(center=center, radius_m=distance_m + extent)

    def depth_m(
        self,
        world_to_cam: Float[Tensor, "4 4"],
        intrinsics: Float[Tensor, "3 3"],
        height: int,
        width: int,
    ) -> Float[Tensor, "h w"]:
        """z-depth at which each pixel's ray meets the sphere, from inside. [h w] float32"""
        pose = invert_rigid(world_to_cam)
        pixels = pixel_centers(height, width)
        rays = torch.cat([pixels, torch.ones(height, width, 1, dtype=torch.float64)], -1)
        rays = rays @ torch.linalg.inv(intrinsics.double()).mT @ pose[:3, :3].mT
        offset = pose[:3, 3] - self.center
        a, b, c = (rays * rays).sum(-1), rays @ offset, offset @ offset - self.radius_m**2
        return ((-b + (b * b - a * c).sqrt()) / a).float()


def evenly(count: int, wanted: int) -> Int[Tensor, " m"]:
    """At most `wanted` of `count` indices, evenly spread, both ends included."""
    if count <= wanted:
        return torch.arange(count)
    if wanted == 1:
        return torch.tensor([count // 2])
    return torch.arange(wanted) * (count - 1) // (wanted - 1)
