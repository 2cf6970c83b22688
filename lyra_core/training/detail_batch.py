"""Batches for super-resolution: parts of samples, low-resolution frames as videos have them, references.

Legend: b samples, h w pixels of low resolution of a part, H W = 4h 4w.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lyra_core.mini.backward_warp import BackwardWarp, pyramid
from lyra_core.mini.super_resolution import FACTOR, Reference, enlarged, enlarged_mask, reduced
from lyra_core.training.detail_samples import GENERATED, DetailSamples

MAX_BLUR_PX = 1.4
BLUR_RADIUS = 4
MAX_NOISE = 0.04
MAX_COLOR = 0.06
MAX_WOBBLE_PX = 0.35
HOLE_SHARE = 0.3
LOST_SHARE = 0.1
"""Of batches' samples whose photograph shows nothing at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailBatch:
    """Parts of samples, in [-1, 1].

    Attributes:
        low_key: as a video has the key frame. [b 3 h w]
        low_frame: likewise.
        key: the truth. [b 3 H W]
        frame: likewise.
        seen_key: where the truth is to be met. [b 1 H W]
        seen_frame: likewise.
        seed: the whole photograph's pyramid, for the key frame and for the frame.
        earlier: the whole earlier picture, for the key frame.
        own: warps the enlarged key frame, given later, to the frame.
        truly: the same by true depth.
        corner: row and column of low resolution at which the parts begin.
        repeats: how often the key frame is enlarged from itself before it counts.
    """

    low_key: Float[Tensor, "b 3 h w"]
    low_frame: Float[Tensor, "b 3 h w"]
    key: Float[Tensor, "b 3 H W"]
    frame: Float[Tensor, "b 3 H W"]
    seen_key: Float[Tensor, "b 1 H W"]
    seen_frame: Float[Tensor, "b 1 H W"]
    seed_for_key: Reference
    seed_for_frame: Reference
    earlier: Reference
    own: BackwardWarp
    truly: BackwardWarp
    corner: tuple[int, int]
    repeats: int = 0

    @property
    def still(self) -> BackwardWarp:
        """From the key frame to itself."""
        cover = torch.ones_like(self.own.cover)
        eye = torch.eye(3, device=cover.device).expand(len(cover), 3, 3)
        zoom = torch.ones_like(self.own.zoom)
        return BackwardWarp(inverse_depth=cover, cover=cover, matrix=eye, offset=eye[:, 0] * 0, zoom=zoom)

    def reference(self, key: Float[Tensor, "b 3 H W"], warp: BackwardWarp) -> Reference:
        """The key frame, enlarged or true, as what the frame is made from."""
        return Reference(levels=pyramid(key), coarse=reduced(key), warp=warp, corner=self.corner, start=self.corner)


def make_batch(
    samples: DetailSamples, side: tuple[int, int], generator: torch.Generator, *, repeats: int = 0
) -> DetailBatch:
    """Parts of samples at one place.

    Args:
        samples: whole.
        side: rows and columns of a part, low-resolution pixels; the whole frame where it is as large.
        generator: on the CPU.
        repeats: most times that key frames are enlarged from themselves.
    """
    again = int(torch.randint(0, repeats + 1, (), generator=generator))
    height, width = (int(n) for n in samples.low_key.shape[2:])
    rows, columns = min(side[0], height), min(side[1], width)
    top = int(torch.randint(0, (height - rows) // 2 + 1, (), generator=generator)) * 2
    left = int(torch.randint(0, (width - columns) // 2 + 1, (), generator=generator)) * 2
    low = (slice(top, top + rows), slice(left, left + columns))
    full = (slice(FACTOR * top, FACTOR * (top + rows)), slice(FACTOR * left, FACTOR * (left + columns)))

    def part(images: Tensor, where: tuple[slice, slice]) -> Tensor:
        return _unit(images[..., where[0], where[1]])

    key, frame = part(samples.key, full), part(samples.frame, full)
    low_key, low_frame = _low(samples, key, frame, low, generator)
    seed, earlier = _unit(samples.seed), _unit(samples.earlier)
    levels, coarse = pyramid(seed), reduced(seed)
    cover = _holes(len(samples), (rows, columns), generator).to(seed)

    def cropped(whole: BackwardWarp, mask: Tensor | None = None) -> BackwardWarp:
        kept = whole.cover[:, low[0], low[1]]
        return replace(
            whole, inverse_depth=whole.inverse_depth[:, low[0], low[1]], cover=kept if mask is None else kept * mask
        )

    def seed_for(whole: BackwardWarp) -> Reference:
        return Reference(levels=levels, coarse=coarse, warp=cropped(whole, cover), corner=(top, left))

    return DetailBatch(
        low_key=low_key,
        low_frame=low_frame,
        key=key,
        frame=frame,
        seen_key=enlarged_mask(samples.seen_key[:, low[0], low[1]])[:, None].float(),
        seen_frame=enlarged_mask(samples.seen_frame[:, low[0], low[1]])[:, None].float(),
        seed_for_key=seed_for(samples.seed_to_key),
        seed_for_frame=seed_for(samples.seed_to_frame),
        earlier=_earlier(earlier, cropped(samples.earlier_to_key), (top, left), generator),
        own=cropped(samples.key_to_frame),
        truly=cropped(samples.truly),
        corner=(top, left),
        repeats=again,
    )


def _earlier(picture: Tensor, warp: BackwardWarp, corner: tuple[int, int], generator: torch.Generator) -> Reference:
    """The earlier frame as the network may have made it: some softer than the truth, some not there at all."""
    b = len(picture)
    soft = torch.rand(b, 1, 1, 1, generator=generator).to(picture) ** 2
    picture = torch.lerp(picture, enlarged(reduced(picture)), soft)
    gone = (torch.rand(b, 1, 1, generator=generator) < 0.25).to(picture.device)
    cover = torch.where(gone, torch.zeros_like(warp.cover), warp.cover)
    return Reference(levels=pyramid(picture), coarse=reduced(picture), warp=replace(warp, cover=cover), corner=corner)


def _low(
    samples: DetailSamples, key: Tensor, frame: Tensor, where: tuple[slice, slice], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Low-resolution frames: generated ones as they are, others from the truth, as wrong as a video is."""
    b = len(samples)
    device = key.device
    sigma = (torch.rand(b, generator=generator) * MAX_BLUR_PX).to(device)
    color = (torch.randn(b, 3, 1, 1, generator=generator) * torch.rand(b, 1, 1, 1, generator=generator)).to(device)
    noise = MAX_NOISE * torch.rand(b, 1, 1, 1, generator=generator).to(device)
    wobble = MAX_WOBBLE_PX * torch.rand(b, 1, 1, 1, generator=generator).to(device)
    is_generated = (samples.kind == GENERATED)[:, None, None, None]
    there = torch.Generator(device)
    there.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    made = []
    for truth, video in ((key, samples.low_key), (frame, samples.low_frame)):
        low = _wobbled(reduced(truth), wobble, there)
        low = _blurred(low, sigma)
        low = low + MAX_COLOR * color + noise * torch.randn(low.shape, generator=there, device=device)
        made.append(torch.where(is_generated, _unit(video[..., where[0], where[1]]), low.clamp(-1, 1)))
    return made[0], made[1]


def _blurred(images: Float[Tensor, "b 3 h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
    """Each image by a Gaussian of its own, pixels."""
    b = len(images)
    x = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device, dtype=images.dtype)
    line = torch.exp(-0.5 * (x[None] / sigma.clamp(min=0.05)[:, None]) ** 2)
    line = (line / line.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = functional.pad(images, [BLUR_RADIUS] * 4, mode="replicate").reshape(1, 3 * b, *_padded(images))
    flat = functional.conv2d(flat, line[:, None, None, :], groups=3 * b)
    return functional.conv2d(flat, line[:, None, :, None], groups=3 * b).reshape(images.shape)


def _padded(images: Tensor) -> tuple[int, int]:
    return int(images.shape[2]) + 2 * BLUR_RADIUS, int(images.shape[3]) + 2 * BLUR_RADIUS


def _wobbled(images: Float[Tensor, "b 3 h w"], amount: Tensor, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Images displaced smoothly, as generated frames do not lie exactly where geometry has them."""
    b, _, h, w = images.shape
    coarse = torch.randn(b, 2, max(2, h // 12), max(2, w // 12), generator=generator, device=images.device)
    flow = functional.interpolate(coarse * amount, (h, w), mode="bicubic", align_corners=True)
    y = torch.arange(h, device=images.device) + 0.5
    x = torch.arange(w, device=images.device) + 0.5
    grid = torch.stack([(x[None, None] + flow[:, 0]) * (2 / w) - 1, (y[None, :, None] + flow[:, 1]) * (2 / h) - 1], -1)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _holes(count: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "b h w"]:
    """Masks of photographs' cover: blobs are missing from some, everything from a few."""
    coarse = torch.rand(count, 1, max(2, size[0] // 12), max(2, size[1] // 12), generator=generator)
    field = functional.interpolate(coarse, size, mode="bicubic", align_corners=True)[:, 0]
    has_holes = torch.rand(count, 1, 1, generator=generator) < HOLE_SHARE
    lost = torch.rand(count, 1, 1, generator=generator) < LOST_SHARE
    return ((~(has_holes & (field < 0.3))) & ~lost).float()


def _unit(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
