"""No holes: what keyframes show and fusion lost comes back, and behind what they show lies a soft continuation.

    points = close_holes(points, anchors, source)      where a keyframe's own picture has gaps
    behind = build_backing(anchors, source, shell)     behind outlines, beyond the borders, all around

The continuation is the baseline's (layered_depth.layers), made from keyframes and their depth. Of it only what no
keyframe sees is kept: it never covers what the video shows, and is met where a camera leaves the video's path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.gaussians.clip_source import ClipSource
from lyra_core.gaussians.coarsen import PointSet
from lyra_core.gaussians.duplicates import NEAR_PLANE, View, project_points
from lyra_core.gaussians.fuse import with_parts
from lyra_core.gaussians.pixel_footprint import FootprintConfig, lift_pixels
from lyra_core.gaussians.rasterize import Rasterizer
from lyra_core.layered_depth.depth import SKY_DEPTH_M
from lyra_core.layered_depth.layers import build_layers
from lyra_core.layered_depth.splats import layer_splats
from lyra_core.values import Gaussians

FOOTPRINT = FootprintConfig()
HOLE_ALPHA = 0.75  # pixels covered less than that are holes
LARGE_PX, REACH_PX = 1.5, 4  # splats of a larger standard deviation in a picture are judged by all within reach
SURFACE = 1.02  # what lies less far behind a keyframe's surface than this ratio belongs to it
SKY_SHARE = 0.8  # of the baseline's sky distance: where the video's own sky is put while layers are made
FULL_LAYERS, OUTLINES = ("behind", "backstop", "around", "dome"), ("behind",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A keyframe that is looked at once more after the fusion.

    Attributes:
        frame: its number in the video.
        view: its geometry; sky lies on the shell.
        sky: its pixels on the shell. [h w]
    """

    frame: int
    view: View
    sky: Bool[Tensor, "h w"]


def close_holes(
    points: PointSet, anchors: list[Anchor], source: ClipSource, footprint: FootprintConfig = FOOTPRINT
) -> PointSet:
    """Add the pixels of keyframes that the set does not cover from their own camera.

    Fusion leaves such gaps where depths of frames disagree: a surface is dropped as floating in front of another
    frame's, whose own is hidden here.

    Args:
        points: world frame.
        anchors: keyframes, in the order in which they may add.
        source: the video.
        footprint: shape of splats made from pixels; opaque and never dropped as flying here.
    """
    whole = replace(footprint, flying_ratio=float("inf"), min_opacity=footprint.max_opacity)
    for anchor in anchors:
        view = anchor.view
        height, width = view.depth_m.shape
        drawn = Rasterizer(points.gaussians).draw(view.world_to_cam, view.intrinsics, height, width)
        holes = (drawn.alpha < HOLE_ALPHA) & (view.depth_m > 0)
        if not bool(holes.any()):
            continue
        new = lift_pixels(
            _picture(source, anchor), view.depth_m, view.confidence, view.world_to_cam, view.intrinsics, holes, whole
        )
        new = with_parts(new, view, *holes.nonzero(as_tuple=True))
        spacing = view.depth_m[holes] / float(view.intrinsics[0, 0])
        points = PointSet.concatenate(
            [points, PointSet(gaussians=new, spacing_m=spacing, confidence=view.confidence[holes])]
        )
    return points


def build_backing(anchors: list[Anchor], source: ClipSource, shell_radius_m: float) -> Gaussians:
    """Splats behind everything that the keyframes see, in the world frame.

    Args:
        anchors: the first one's surroundings are continued all around, the others' only behind outlines.
        source: the video, for colours.
        shell_radius_m: distance of the video's sky.
    """
    scale = SKY_SHARE * SKY_DEPTH_M / shell_radius_m
    parts = []
    for number, anchor in enumerate(anchors):
        view = anchor.view
        layers = build_layers(
            _picture(source, anchor).float() / 255.0, view.depth_m * scale, anchor.sky, view.intrinsics.double()
        )
        pose = view.world_to_cam.double().clone()
        pose[:3, 3] *= scale
        made = layer_splats(layers, pose, FULL_LAYERS if number == 0 else OUTLINES)
        made = replace(made, means=made.means / scale, scales=made.scales / scale)
        parts.append(made[is_unseen(made, anchors)])
    return Gaussians.concatenate(parts)


def is_unseen(gaussians: Gaussians, anchors: list[Anchor]) -> Bool[Tensor, " n"]:
    """Those that lie behind the surface of every keyframe in whose picture they are, large ones with all they cover."""
    unseen = torch.ones(len(gaussians), dtype=torch.bool)
    size = gaussians.scales.amax(1)
    for anchor in anchors:
        view = anchor.view
        height, width = view.depth_m.shape
        u, v, z = project_points(gaussians.means, view.world_to_cam, view.intrinsics)
        inside = (z > NEAR_PLANE) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        row, column = v.floor().long().clamp(0, height - 1), u.floor().long().clamp(0, width - 1)
        around = functional.max_pool2d(view.depth_m[None], 2 * REACH_PX + 1, 1, REACH_PX)[0]
        is_large = size * float(view.intrinsics[0, 0]) > LARGE_PX * z
        surface = torch.where(is_large, around[row, column], view.depth_m[row, column])
        unseen &= ~(inside & (surface > 0) & (z < SURFACE * surface))
    return unseen


def _picture(source: ClipSource, anchor: Anchor) -> UInt8[Tensor, "h w 3"]:
    return source.window(torch.tensor([anchor.frame])).frames[0]
