"""Procedural worlds with exact depth: the data that trains the mini model and judges fusion, made on the fly.

    scenes = [sample_scene(seed) for seed in range(8)]
    batch = SceneBatch.of(scenes, default_atlas("train"))
    frames = render_scene(batch, [sample_view_path(s, ...) for s in scenes], 128, 224)
    clip = scene_clip(3, "orbit", 81, 128, 224)

A scene is a list of boxes, ellipsoids and upright cones over a flat or wavy ground; rays are cast against all of them,
so that depth is exact and a camera can go anywhere. Everything runs on CPU and GPU alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.errors import FrameError
from lyra_core.procedural.atlas import Atlas, default_atlas
from lyra_core.procedural.ray_cast import Casting, is_fused, nearest_hits
from lyra_core.procedural.scene_batch import Scene, SceneBatch
from lyra_core.procedural.scenes import sample_scene
from lyra_core.procedural.shade import shade
from lyra_core.procedural.views import sample_path
from lyra_core.values import CameraPath, VideoClip

__all__ = [
    "Frames",
    "Scene",
    "SceneBatch",
    "SceneLook",
    "render_color",
    "render_depth",
    "render_frames",
    "render_scene",
    "sample_scene",
    "scene_clip",
]

CHUNK_RAYS = 16_384
"""Rays a chunk on the CPU: the temporaries of one shape stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Rendered frames of b scenes.

    Attributes:
        rgb: sRGB in [0, 1]. [b t h w 3] float32
        depth_m: exact z-depth of pixel centres (OpenCV), 0 where sky. [b t h w] float32
        sky: True where no shape is hit. [b t h w] bool
    """

    rgb: Float[Tensor, "b t h w 3"]
    depth_m: Float[Tensor, "b t h w"]
    sky: Bool[Tensor, "b t h w"]


def pixel_rays(
    cam_to_world: Float[Tensor, "b t 4 4"],
    intrinsics: Float[Tensor, "b t 3 3"],
    height: int,
    width: int,
    supersample: int,
) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]]:
    """Origins and directions of the rays of all pixels; directions have z = 1 in their camera.

    Args:
        cam_to_world: rigid, metres.
        intrinsics: pixels of a height x width image, pixel centres at +0.5.
        height: rows.
        width: columns.
        supersample: rays along each side of a pixel.

    Returns:
        Origins and directions in the world frame, rays in the order t, h, w, sub-row, sub-column.
    """
    b = cam_to_world.shape[0]
    device, dtype = cam_to_world.device, cam_to_world.dtype
    step = (torch.arange(supersample, device=device, dtype=dtype) + 0.5) / supersample
    v = (torch.arange(height, device=device, dtype=dtype)[:, None] + step)[:, None, :, None]
    u = (torch.arange(width, device=device, dtype=dtype)[:, None] + step)[None, :, None, :]
    K = intrinsics[:, :, None, None, None, None]
    x = (u - K[..., 0, 2]) / K[..., 0, 0]
    y = (v - K[..., 1, 2]) / K[..., 1, 1]
    x, y = torch.broadcast_tensors(x, y)
    R = cam_to_world[:, :, None, None, None, None, :3, :3]
    direction = R[..., 0] * x[..., None] + R[..., 1] * y[..., None] + R[..., 2]
    origin = cam_to_world[:, :, None, None, None, None, :3, 3].expand_as(direction)
    return origin.reshape(b, -1, 3), direction.reshape(b, -1, 3)


def render_color(
    scenes: SceneBatch,
    cam_to_world: Float[Tensor, "b t 4 4"],
    intrinsics: Float[Tensor, "b t 3 3"],
    height: int,
    width: int,
    *,
    supersample: int = 2,
    shadows: bool = True,
    casting: Casting = "auto",
) -> Float[Tensor, "b t h w 3"]:
    """sRGB frames in [0, 1]; arguments as those of render_frames."""
    if is_fused(casting, cam_to_world.device):
        from lyra_core.procedural.render_kernel import render

        rgb, _ = render(
            scenes, cam_to_world, intrinsics, height, width, supersample=supersample, shadows=shadows, with_depth=False
        )
        return rgb
    b, t = cam_to_world.shape[:2]
    pixel = 1 / (intrinsics[:, 0, 0, 0] * supersample)
    origin, direction = pixel_rays(cam_to_world, intrinsics, height, width, supersample)
    hits = nearest_hits(scenes, origin, direction, casting)
    rgb = shade(scenes, origin, direction, hits, pixel, shadows=shadows, casting=casting)
    return rgb.reshape(b, t, height, width, supersample * supersample, 3).mean(-2)


def render_frames(
    scenes: SceneBatch,
    cam_to_world: Float[Tensor, "b t 4 4"],
    intrinsics: Float[Tensor, "b t 3 3"],
    height: int,
    width: int,
    *,
    supersample: int = 2,
    shadows: bool = True,
    casting: Casting = "auto",
) -> Frames:
    """Frames of tensors of cameras in one go.

    Args:
        scenes: b scenes.
        cam_to_world: float32 on the scenes' device, metres.
        intrinsics: pixels of a height x width image, pixel centres at +0.5; one focal length a scene.
        height: rows.
        width: columns.
        supersample: rays along each side of a pixel for colour; depth has one ray at the centre.
        shadows: cast shadows.
        casting: how rays meet shapes.
    """
    draw: dict[str, Any] = {"supersample": supersample, "shadows": shadows}
    if is_fused(casting, cam_to_world.device):
        from lyra_core.procedural.render_kernel import render

        rgb, fused = render(scenes, cam_to_world, intrinsics, height, width, **draw)
        assert fused is not None  # noqa: S101 - drawn unless it is refused
        depth = fused
    else:
        rgb = render_color(scenes, cam_to_world, intrinsics, height, width, casting=casting, **draw)
        hits = nearest_hits(scenes, *pixel_rays(cam_to_world, intrinsics, height, width, 1), casting)
        depth = hits.t.reshape(*cam_to_world.shape[:2], height, width)
    sky = torch.isinf(depth)
    return Frames(rgb=rgb, depth_m=torch.where(sky, 0.0, depth), sky=sky)


def render_depth(
    scenes: SceneBatch,
    cam_to_world: Float[Tensor, "b t 4 4"],
    intrinsics: Float[Tensor, "b t 3 3"],
    height: int,
    width: int,
) -> Float[Tensor, "b t h w"]:
    """Exact z-depth of pixel centres in metres, infinite where sky, without colour; arguments as of render_frames."""
    rays = pixel_rays(cam_to_world, intrinsics, height, width, 1)
    return nearest_hits(scenes, *rays).t.reshape(*cam_to_world.shape[:2], height, width)


def render_scene(
    scenes: SceneBatch,
    cameras: Sequence[CameraPath],
    height: int,
    width: int,
    *,
    supersample: int = 2,
    shadows: bool = True,
) -> Frames:
    """Frames of scenes along camera paths, in chunks that fit a cache (CPU) or a card (GPU).

    Args:
        scenes: b scenes.
        cameras: one path a scene, of equal lengths; resized to the wanted image.
        height: rows.
        width: columns.
        supersample: rays along each side of a pixel for colour; depth has one ray at the centre.
        shadows: cast shadows.

    Raises:
        FrameError: as many paths as scenes are needed, all of one length.
    """
    lengths = {len(path) for path in cameras}
    if len(cameras) != len(scenes) or len(lengths) != 1:
        raise FrameError(
            f"{len(scenes)} scenes need as many camera paths of one length, "
            f"found {len(cameras)} of lengths {sorted(lengths)}"
        )
    device = scenes.texture.device
    resized = [path.resized(height, width) for path in cameras]
    cam_to_world = torch.stack([path.cam_to_world for path in resized]).to(device, torch.float32)
    intrinsics = torch.stack([path.intrinsics for path in resized]).to(device, torch.float32)
    rays = height * width * supersample * supersample
    at_once = max(1, (CHUNK_RAYS if device.type == "cpu" else 16_000_000 // len(scenes)) // rays)
    parts = [
        render_frames(scenes, c, k, height, width, supersample=supersample, shadows=shadows)
        for c, k in zip(cam_to_world.split(at_once, 1), intrinsics.split(at_once, 1), strict=True)
    ]
    return Frames(
        rgb=torch.cat([part.rgb for part in parts], 1),
        depth_m=torch.cat([part.depth_m for part in parts], 1),
        sky=torch.cat([part.sky for part in parts], 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneLook:
    """What kind of place a clip shows, and how it is rendered.

    Attributes:
        split: "train" or "heldout".
        kind: one of scenes.COMPOSERS, or None to draw one.
        supersample: rays along each side of a pixel for colour.
        atlas: textures of the split, or None for a small default.
    """

    split: str = "train"
    kind: str | None = None
    supersample: int = 2
    atlas: Atlas | None = None


@torch.no_grad()
def scene_clip(
    seed: int,
    path_name: str,
    num_frames: int,
    height: int,
    width: int,
    look: SceneLook = SceneLook(),
    *,
    drawn: Sequence[int] | None = None,
) -> VideoClip:
    """A clip of a procedural place with exact depth, sky and cameras (first camera at the world's origin).

    Args:
        seed: of the scene and its camera.
        path_name: one of views.PATHS.
        num_frames: frames.
        height: rows.
        width: columns.
        look: what kind of place, and how it is rendered.
        drawn: frames with a picture, or None for all; the others are black and of unknown depth.

    Raises:
        ConfigError: an unknown split or a negative seed.
        CameraPathError: an unknown path.
    """
    scene = sample_scene(seed, look.split, kind=look.kind)
    path = sample_path(scene, path_name, num_frames, height, width)
    batch = SceneBatch.of([scene], default_atlas(look.split) if look.atlas is None else look.atlas)
    at = list(range(num_frames) if drawn is None else drawn)
    frames = render_scene(batch, [path[at]], height, width, supersample=look.supersample)
    rgb = torch.zeros(num_frames, height, width, 3, dtype=torch.uint8)
    depth_m, sky = torch.zeros(num_frames, height, width), torch.zeros(num_frames, height, width, dtype=torch.bool)
    rgb[at] = (frames.rgb[0] * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    depth_m[at], sky[at] = frames.depth_m[0].cpu(), frames.sky[0].cpu()
    first = path.cam_to_world[:1]
    relative = CameraPath(
        world_to_cam=path.world_to_cam @ first,
        intrinsics=path.intrinsics,
        image_height=height,
        image_width=width,
        name=path.name,
    )
    return VideoClip(frames=rgb, cameras=relative, depth_m=depth_m, sky=sky)
