"""Clips of photographs as flat pictures in space, with exact depth: what lies beyond the border of a real view.

A photograph hangs as a slanted plane in front of the camera, which turns, slides and approaches and so reveals parts of
it that its first frame did not show. The video network meets real colours and textures this way, and what continues
them; shape it learns from the procedural worlds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lyra_core.procedural.photo_clips import CANVAS, LEVELS, PhotoLibrary

PLANE_M = 3.0
TURN_RAD = 0.62
SLIDE_M = 0.9
APPROACH_M = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFrames:
    """Clips of photographs in space.

    Attributes:
        rgb: sRGB in [0, 1]. [b t 3 h w]
        depth_m: [b t h w]
        world_to_cam: [b t 4 4]
        intrinsics: [b t 3 3]
    """

    rgb: Float[Tensor, "b t 3 h w"]
    depth_m: Float[Tensor, "b t h w"]
    world_to_cam: Float[Tensor, "b t 4 4"]
    intrinsics: Float[Tensor, "b t 3 3"]


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _courses(count: int, num_frames: int, generator: torch.Generator) -> Float[Tensor, "b t 4"]:
    """Turn, slide, rise and approach of each frame, in [-1, 1], 0 in the first: steady, there and back, or waves."""
    s = torch.linspace(0, 1, num_frames)
    phase = _uniform(generator, 0.0, 2 * math.pi, count, 1, 4)
    waves = torch.sin(2 * math.pi * s[None, :, None] + phase) - torch.sin(phase)
    back = 0.5 - 0.5 * torch.cos(2 * math.pi * s)
    forms = torch.stack([s[None, :, None].expand_as(waves), back[None, :, None].expand_as(waves), waves / 2], -1)
    form = torch.randint(3, (count, 1, 1, 1), generator=generator).expand(count, num_frames, 4, 1)
    return forms.gather(-1, form)[..., 0]


def _rotations(turn: Tensor, tilt: Tensor) -> Float[Tensor, "*n 3 3"]:
    """Turn about y (positive looks right) after a tilt about x (positive looks down)."""
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    cy, sy, cp, sp = torch.cos(turn), torch.sin(turn), torch.cos(tilt), torch.sin(tilt)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).unflatten(-1, (3, 3))
    about_x = torch.stack([one, zero, zero, zero, cp, -sp, zero, sp, cp], -1).unflatten(-1, (3, 3))
    return about_y @ about_x


def photo_frames(
    library: PhotoLibrary,
    count: int,
    num_frames: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    chosen: Int[Tensor, "b k"] | None = None,
    fineness: tuple[float, float] | None = None,
) -> PhotoFrames:
    """Clips of random photographs.

    Args:
        library: the photographs.
        count: clips.
        num_frames: frames of each.
        height: rows.
        width: columns.
        generator: on the CPU.
        chosen: frames that are drawn; None for all.
        fineness: range of the photograph's own pixels that a pixel of the first frame shows along an axis, beyond the
            border too; None shows some part of the photograph.
    """
    device = library.levels[0].device
    focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(_uniform(generator, 52.0, 72.0, count)))
    K = torch.eye(3).repeat(count, 1, 1)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = focal, focal, width / 2, height / 2
    course = _courses(count, num_frames, generator) * _uniform(generator, -1.0, 1.0, count, 1, 4)
    if chosen is not None:
        course = course.gather(1, chosen[:, :, None].expand(-1, -1, 4))
    turn, slide, rise, approach = course.unbind(-1)
    position = torch.stack([SLIDE_M * slide, 0.25 * SLIDE_M * rise, APPROACH_M * approach], -1)
    rotation = _rotations(TURN_RAD * turn, 0.3 * TURN_RAD * rise)
    # the picture: middle, axes and size in metres; its first view shows a part of it
    which = torch.randint(len(library), (count,), generator=generator)
    extent = library.extent[which] * torch.tensor([CANVAS[1], CANVAS[0]])
    slant = _rotations(_uniform(generator, -0.45, 0.45, count), _uniform(generator, -0.2, 0.2, count))
    if fineness is None:
        scale = _uniform(generator, 0.35, 0.9, count) * (extent / torch.tensor([width, height])).amin(-1)
    else:
        scale = _uniform(generator, *fineness, count) * library.enlarged[which].clamp(min=1.0)
    texel_m = PLANE_M / (focal * scale)
    room = 0.5 * (extent - scale[:, None] * torch.tensor([width, height])).clamp(min=0)
    middle = 0.5 * extent + _uniform(generator, -1.0, 1.0, count, 2) * room
    return _draw(library, which, K, position, rotation, slant, middle, texel_m, extent, scale, (height, width), device)


def _draw(
    library: PhotoLibrary, which: Tensor, K: Tensor, position: Tensor, rotation: Tensor, slant: Tensor,
    middle: Tensor, texel_m: Tensor, extent: Tensor, scale: Tensor, size: tuple[int, int], device: torch.device,
) -> PhotoFrames:  # fmt: skip
    """Cast a ray for each pixel at the plane; the picture goes on mirrored beyond its border."""
    height, width = size
    count, frames = position.shape[:2]
    level = torch.log2(scale).round().clamp(0, LEVELS - 1).long().tolist()
    K, position, rotation, slant, middle, texel_m, extent = (
        tensor.to(device) for tensor in (K, position, rotation, slant, middle, texel_m, extent)
    )
    v = torch.arange(height, device=device) + 0.5
    u = torch.arange(width, device=device) + 0.5
    x = ((u - width / 2) / K[:, 0, 0, None])[:, None].expand(count, height, width)
    y = ((v - height / 2) / K[:, 1, 1, None])[:, :, None].expand(count, height, width)
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    direction = torch.einsum("btij,bhwj->bthwi", rotation, rays)
    normal = slant[:, :, 2]
    offset = torch.tensor([0.0, 0.0, PLANE_M], device=device) - position
    along = torch.einsum("bti,bi->bt", offset, normal)[..., None, None]
    facing = torch.einsum("bthwi,bi->bthw", direction, normal)
    hit = facing > 0.05
    t = torch.where(hit, along / facing.clamp(min=0.05), torch.zeros_like(facing)).clamp(max=60.0)
    point = position[:, :, None, None] + t[..., None] * direction - torch.tensor([0.0, 0.0, PLANE_M], device=device)
    canvas = torch.tensor([CANVAS[1], CANVAS[0]], device=device)
    at = torch.stack([torch.einsum("bthwi,bi->bthw", point, slant[:, :, axis]) for axis in (0, 1)], -1)
    at = middle[:, None, None, None] + at / texel_m[:, None, None, None, None]
    edge = extent[:, None, None, None]
    folded = edge - (edge - torch.remainder(at, 2 * edge)).abs()
    grid = 2 * folded / canvas - 1
    rgb = torch.empty(count, frames, 3, height, width, device=device)
    for index, (photo, mip) in enumerate(zip(which.tolist(), level, strict=True)):
        source = library.levels[mip][photo].expand(frames, -1, -1, -1)
        rgb[index] = functional.grid_sample(source, grid[index], padding_mode="border", align_corners=False)
    w2c = torch.eye(4, device=device).repeat(count, frames, 1, 1)
    w2c[..., :3, :3] = rotation.mT
    w2c[..., :3, 3] = -torch.einsum("btji,btj->bti", rotation, position)
    return PhotoFrames(
        rgb=rgb.clamp(0, 1),
        depth_m=torch.where(t < 60.0, t, torch.zeros_like(t)),
        world_to_cam=w2c,
        intrinsics=K[:, None].expand(count, frames, 3, 3).contiguous(),
    )
