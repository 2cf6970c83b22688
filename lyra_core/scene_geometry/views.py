"""Depth of some frames, drawn from the surfaces of a world: what physics is made of, for every model alike.

Centres of Gaussians are no surface: a third of them are backing or dome, and the rest lie above and below the depth
that they show together.

Shape legend: t views, h w pixels, n points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lyra_core.gaussians.chunked_fuse import beside_edge, evenly
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera import pixel_centers
from lyra_core.values import CameraPath, Gaussians, Part

SOLID_ALPHA = 0.9  # a pixel covered less shows something else too, and its depth is a mixture
# Neighbours whose inverse depths differ by this ratio lie on two surfaces; drawing blurs such an edge by a pixel.
EDGE_RATIO = 0.1
EDGE_REACH_PX = 1
FAR_RATIO = 8.0  # of the median depth: without parts, what lies beyond is taken for the sky


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthViews:
    """Drawn frames.

    Attributes:
        depth: z-depth in world units, 0 where unknown. [t h w] float32
        color: sRGB, 0 to 1. [t h w 3] float32
        cameras: of the frames.
    """

    depth: Float[Tensor, "t h w"]
    color: Float[Tensor, "t h w 3"]
    cameras: CameraPath


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfacePoints:
    """Points on surfaces, in the world frame.

    Attributes:
        xyz: world units. [n 3] float64
        normals: unit, towards the camera that sees the point. [n 3] float64
        ranges: distance from that camera, world units. [n] float64
    """

    xyz: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    ranges: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.xyz)


def draw_views(gaussians: Gaussians, cameras: CameraPath, count: int) -> DepthViews:
    """Frames spread evenly over a path, drawn from what key frames show; backing and dome have no depth.

    Args:
        gaussians: world frame.
        cameras: of the video.
        count: how many frames at most.
    """
    chosen = cameras[evenly(len(cameras), count)]
    surface = gaussians.of_parts(Part.KEYFRAME).to("cpu")
    if len(surface) == 0:
        shape = (len(chosen), chosen.image_height, chosen.image_width)
        return DepthViews(depth=torch.zeros(shape), color=torch.zeros(*shape, 3), cameras=chosen)
    drawn = render(surface, chosen)
    depth = torch.where(drawn.alpha >= SOLID_ALPHA, drawn.depth_m, 0.0)
    known = depth[depth > 0]
    if gaussians.part is None and known.numel():
        depth = torch.where(depth <= FAR_RATIO * known.median(), depth, 0.0)
    return DepthViews(depth=without_edges(depth), color=drawn.color, cameras=chosen)


def without_edges(depth: Float[Tensor, "t h w"]) -> Float[Tensor, "t h w"]:
    """Depth that is 0 beside its jumps, where it belongs to neither surface."""
    edge = torch.stack([beside_edge(view, EDGE_RATIO) for view in depth]).float()
    near = functional.max_pool2d(edge[:, None], 2 * EDGE_REACH_PX + 1, 1, EDGE_REACH_PX)[:, 0] > 0
    return torch.where(near, 0.0, depth)


def surface_points(views: DepthViews) -> SurfacePoints:
    """The pixels of known depth whose neighbours are known too, as points with normals from differences of depth."""
    parts = [
        _points(depth, w2c, K)
        for depth, w2c, K in zip(views.depth, views.cameras.cam_to_world, views.cameras.intrinsics, strict=True)
    ]
    xyz, normals, ranges = (np.concatenate([part[k] for part in parts]) for k in range(3))
    return SurfacePoints(xyz=xyz, normals=normals, ranges=ranges)


def facing(views: DepthViews) -> Float[Tensor, "t h w"]:
    """How squarely each pixel's ray meets the surface: the cosine of the angle to its normal; 1 where unknown."""
    found = torch.ones_like(views.depth)
    for cosine, depth, K in zip(found, views.depth, views.cameras.intrinsics, strict=True):
        local, normal, whole = _local_surface(depth, K)
        toward = -torch.nn.functional.normalize(local, dim=-1)
        cosine[1:-1, 1:-1] = torch.where(whole, (normal * toward).sum(-1).abs(), 1.0).float()
    return found


def _points(depth: Tensor, cam_to_world: Tensor, K: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    local, normal, whole = _local_surface(depth, K)
    points, normals = local[whole], normal[whole]
    rotation, center = cam_to_world[:3, :3], cam_to_world[:3, 3]
    xyz = points @ rotation.mT + center
    return xyz.numpy(), (normals @ rotation.mT).numpy(), points.norm(dim=-1).numpy()


def _local_surface(depth: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points and unit normals of the inner pixels in the camera's frame, and where they and their neighbours are known.

    [h-2 w-2 3], [h-2 w-2 3], [h-2 w-2]
    """
    height, width = depth.shape
    rays = (pixel_centers(height, width) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    local = torch.cat([rays, torch.ones(height, width, 1, dtype=torch.float64)], -1) * depth.double()[..., None]
    right, down = local[1:-1, 2:] - local[1:-1, :-2], local[2:, 1:-1] - local[:-2, 1:-1]
    known = depth > 0
    whole = known[1:-1, 1:-1] & known[1:-1, 2:] & known[1:-1, :-2] & known[2:, 1:-1] & known[:-2, 1:-1]
    # x right, y down: this product points to the camera.
    normal = torch.linalg.cross(down, right)
    size = normal.norm(dim=-1, keepdim=True)
    return local[1:-1, 1:-1], normal / size.clamp_min(1e-30), whole & (size[..., 0] > 0)
