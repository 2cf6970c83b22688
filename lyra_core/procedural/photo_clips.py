"""Short clips made of photographs: a virtual camera pans, zooms and rolls over them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import SeedError
from lyra_core.procedural.photographs import LibraryPhoto

CANVAS = (832, 1248)
LEVELS = 4
Number = float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoLibrary:
    """Photographs on canvases of one size, with mip levels, on one device.

    Attributes:
        levels: sRGB in [0, 1], finest first; each [n 3 h w].
        extent: share of the canvas each photograph covers, x and y; on the CPU. [n 2]
    """

    levels: tuple[Tensor, ...]
    extent: Float[Tensor, "n 2"]

    @classmethod
    def of(cls, photographs: Sequence[LibraryPhoto], device: str | torch.device) -> PhotoLibrary:
        """Scale photographs into canvases (upright ones keep their shape and cover part of one).

        Raises:
            SeedError: no photographs.
        """
        if not photographs:
            raise SeedError("clips of photographs need at least one photograph, found none")
        canvases, extent = [], []
        for photograph in photographs:
            pixels = photograph.pixels.permute(2, 0, 1)[None].float() / 255
            scale = min(CANVAS[0] / pixels.shape[2], CANVAS[1] / pixels.shape[3])
            size = (round(pixels.shape[2] * scale), round(pixels.shape[3] * scale))
            small = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
            pad = (0, CANVAS[1] - size[1], 0, CANVAS[0] - size[0])
            canvases.append(functional.pad(small, pad, mode="replicate"))
            extent.append([size[1] / CANVAS[1], size[0] / CANVAS[0]])
        level = torch.cat(canvases).clamp(0, 1).to(device)
        levels = [level]
        for _ in range(LEVELS - 1):
            levels.append(functional.avg_pool2d(levels[-1], 2))
        return cls(levels=tuple(levels), extent=torch.tensor(extent))

    def __len__(self) -> int:
        return int(self.extent.shape[0])


def _uniform(generator: torch.Generator, low: Number, high: Number, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def photo_clips(
    library: PhotoLibrary,
    count: int,
    num_frames: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    speed: Number = 1.0,
) -> Float[Tensor, "b t 3 h w"]:
    """Clips of random photographs, sRGB in [0, 1], each at one random scale.

    Args:
        library: the photographs.
        count: clips.
        num_frames: frames of each.
        height: rows.
        width: columns.
        generator: on the CPU, so that drawing never waits for the device.
        speed: scales the motion; 0 gives stills.
    """
    device = library.levels[0].device
    uniform = functools.partial(_uniform, generator)

    which = torch.randint(len(library), (count,), generator=generator)
    extent = library.extent[which]
    canvas = extent.new_tensor([CANVAS[1], CANVAS[0]])
    # canvas pixels a clip pixel covers: 1 shows fine grain, larger shows the whole photograph
    largest = (extent * canvas / extent.new_tensor([width, height])).amin(-1)
    zoom = torch.exp(uniform(0, 1, count) * torch.log(largest.clamp(min=1.0))) * uniform(0.7, 0.95, count)
    s = torch.linspace(-0.5, 0.5, num_frames)
    scale = zoom[:, None] * torch.exp(speed * uniform(-0.12, 0.12, count)[:, None] * s)
    roll = speed * uniform(-0.06, 0.06, count)[:, None] * s + uniform(-0.05, 0.05, count)[:, None]
    half = 0.5 * scale.amax(1)[:, None] * extent.new_tensor([width, height]) / canvas
    room = (extent / 2 - half).clamp(min=0)
    drift = speed * uniform(-0.11, 0.11, count, 2) * half * 2
    middle = extent / 2 + (uniform(-1, 1, count, 2) * (room - drift.abs() / 2).clamp(min=0))
    at = middle[:, None] + drift[:, None] * s[:, None]
    at, scale, roll = at.to(device), scale.to(device), roll.to(device)
    v = (torch.arange(height, device=device) + 0.5 - height / 2)[:, None].expand(height, width)
    u = (torch.arange(width, device=device) + 0.5 - width / 2)[None].expand(height, width)
    cos, sin = (f(roll)[..., None, None] for f in (torch.cos, torch.sin))
    x = at[..., 0, None, None] + scale[..., None, None] * (cos * u - sin * v) / CANVAS[1]
    y = at[..., 1, None, None] + scale[..., None, None] * (sin * u + cos * v) / CANVAS[0]
    grid = torch.stack([2 * x - 1, 2 * y - 1], -1)
    out = torch.empty(count, num_frames, 3, height, width, device=device)
    level = torch.log2(zoom).round().clamp(0, LEVELS - 1).long().tolist()
    for index, (photo, mip) in enumerate(zip(which.tolist(), level, strict=True)):
        source = library.levels[mip][photo].expand(num_frames, -1, -1, -1)
        out[index] = functional.grid_sample(source, grid[index], padding_mode="reflection", align_corners=False)
    return out.clamp(0, 1)


def jitter_colors(
    clips: Float[Tensor, "b t 3 h w"], generator: torch.Generator, *, mirror: bool = True
) -> Float[Tensor, "b t 3 h w"]:
    """Mirror half of the clips and vary gain, gamma and the order of channels: few photographs become many.

    Args:
        clips: sRGB in [0, 1].
        generator: on the CPU.
        mirror: False where cameras belong to the clips.
    """
    device, count = clips.device, clips.shape[0]
    uniform = functools.partial(_uniform, generator)

    mirrored = (uniform(0, 1, count) < 0.5)[:, None, None, None, None].to(device)
    if mirror:
        clips = torch.where(mirrored, clips.flip(-1), clips)
    order = torch.argsort(uniform(0, 1, count, 3), dim=1)
    same = (uniform(0, 1, count) < 0.6)[:, None]
    order = torch.where(same, torch.arange(3).expand(count, 3), order).to(device)
    clips = torch.gather(clips, 2, order[:, None, :, None, None].expand_as(clips))
    gamma = torch.exp(uniform(-1, 1, count) * math.log(1.5))[:, None, None, None, None].to(device)
    gain = uniform(0.75, 1.2, count, 3)[:, None, :, None, None].to(device)
    return (clips.clamp(min=1e-4) ** gamma * gain).clamp(0, 1)
