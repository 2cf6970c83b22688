"""Samples for super-resolution: a world's first picture and three later frames at full size, with what warps them.

    procedural worlds -- render --+-- low-resolution frames are made from the truth when a batch is drawn
    photographs on planes --------+
    procedural worlds -- mini's own video along the same cameras ---- low-resolution frames as the product has them

Of each sample there are four frames: the seed (frame 0), an earlier frame, a key frame up to eight frames later and a
frame up to eight frames after that. Pictures are warped from the seed to key and frame, from the earlier frame to the
key frame, and from the key frame to the frame: what super-resolution meets in a world.

Legend: b samples, h w pixels of low resolution, H W = 4h 4w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.mini.backward_warp import BackwardWarp, backward_warp
from lyra_core.mini.depth import MiniDepth
from lyra_core.mini.depth_estimator import see_single
from lyra_core.native import CHUNK_FRAMES
from lyra_core.procedural.photo_clips import PhotoLibrary, jitter_colors
from lyra_core.procedural.photo_worlds import photo_frames
from lyra_core.procedural.world_clips import DrawnClips, WorldLibrary
from lyra_core.procedural.worlds import render_color, render_frames
from lyra_core.video.depth_cache import SKY_DEPTH_M

if TYPE_CHECKING:
    from typing import Self

FACTOR = 4
STRIDE = 8
"""Frames from one key frame to the next."""
RENDERED, GENERATED = 0, 1
SMOOTH_ERROR = 0.03
"""Of depth's logarithm: the coarse part of a made-up error; the finer part has a third of it."""
NATIVE = (0.85, 1.1)
"""Pixels of a photograph for each of a sample: neither enlarged nor reduced by much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailSamples:
    """Samples as they are kept.

    Attributes:
        seed: sRGB bytes. [b 3 H W]
        earlier: likewise.
        key: the truth of the key frame.
        frame: the truth of the frame.
        low_key: the key frame as a video has it; black where it is made from the truth. [b 3 h w]
        low_frame: likewise.
        seen_key: pixels whose truth is to be met. [b h w]
        seen_frame: likewise.
        kind: RENDERED or GENERATED. [b]
        seed_to_key, seed_to_frame, earlier_to_key, key_to_frame: by depth as a world may know it.
        truly: from key to frame by true depth.
    """

    seed: UInt8[Tensor, "b 3 H W"]
    earlier: UInt8[Tensor, "b 3 H W"]
    key: UInt8[Tensor, "b 3 H W"]
    frame: UInt8[Tensor, "b 3 H W"]
    low_key: UInt8[Tensor, "b 3 h w"]
    low_frame: UInt8[Tensor, "b 3 h w"]
    seen_key: Bool[Tensor, "b h w"]
    seen_frame: Bool[Tensor, "b h w"]
    kind: Int[Tensor, " b"]
    seed_to_key: BackwardWarp
    seed_to_frame: BackwardWarp
    earlier_to_key: BackwardWarp
    key_to_frame: BackwardWarp
    truly: BackwardWarp

    def __len__(self) -> int:
        return int(self.kind.shape[0])

    def __getitem__(self, which: Tensor | slice) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[DetailSamples]) -> Self:
        """Samples one after the other."""

        def together(values: list[Tensor | BackwardWarp]) -> Tensor | BackwardWarp:
            if isinstance(values[0], BackwardWarp):
                names = [f.name for f in fields(BackwardWarp)]
                return BackwardWarp(**{name: torch.cat([getattr(v, name) for v in values]) for name in names})
            return torch.cat([v for v in values if isinstance(v, Tensor)])

        whole: dict[str, Any] = {f.name: together([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        return cls(**whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Views:
    """Four frames of b places, at both resolutions: rgb [b 4 3 H W] in [0, 1], depth [b 4 h w], cameras of low ones."""

    rgb: Tensor
    depth_m: Tensor
    world_to_cam: Tensor
    intrinsics: Tensor


def draw_times(count: int, generator: torch.Generator) -> Int[Tensor, "b 4"]:
    """Numbers of the four frames of each sample."""
    key = STRIDE * torch.randint(0, CHUNK_FRAMES // STRIDE, (count,), generator=generator)
    after = torch.randint(1, STRIDE + 1, (count,), generator=generator)
    return torch.stack([torch.zeros_like(key), (key - STRIDE).clamp(min=0), key, key + after], 1)


class DetailMaker:
    """Makes samples on the worlds' device."""

    def __init__(
        self, worlds: WorldLibrary, photos: PhotoLibrary | None, depth: MiniDepth, *, supersample: int = 2
    ) -> None:
        """`worlds` has low-resolution size and paths of at least a chunk; `depth` makes the errors of an estimate."""
        self.worlds, self.photos, self.depth, self.supersample = worlds, photos, depth, supersample

    @torch.no_grad()
    def rendered(self, count: int, generator: torch.Generator) -> DetailSamples:
        """Samples of procedural worlds, half of them warped by estimated depth."""
        drawn = self.worlds.draw(count, CHUNK_FRAMES + 1, generator, speed=1)
        views = self._render(drawn, draw_times(count, generator))
        views = replace(views, rgb=jitter_colors(views.rgb, generator, mirror=False))
        known = self._known_depth(views, generator)
        return _samples(views, known, RENDERED)

    @torch.no_grad()
    def photographs(self, count: int, generator: torch.Generator) -> DetailSamples:
        """Samples of photographs on planes, warped by depth with made-up errors.

        Raises:
            SeedError: there are none.
        """
        from lyra_core.errors import SeedError

        if self.photos is None:
            raise SeedError("samples of photographs were asked for, but there are no photographs")
        height, width = self.worlds.size
        made = photo_frames(
            self.photos,
            count,
            CHUNK_FRAMES + 1,
            FACTOR * height,
            FACTOR * width,
            generator,
            chosen=draw_times(count, generator),
            fineness=NATIVE,
        )
        rgb = jitter_colors(made.rgb, generator, mirror=False)
        inverse = torch.where(made.depth_m > 0, 1 / made.depth_m.clamp(min=1e-6), torch.zeros_like(made.depth_m))
        inverse = functional.avg_pool2d(inverse, FACTOR)
        views = _Views(
            rgb=rgb,
            depth_m=torch.where(inverse > 0, 1 / inverse.clamp(min=1e-6), torch.zeros_like(inverse)),
            world_to_cam=made.world_to_cam,
            intrinsics=_scaled(made.intrinsics, 1 / FACTOR),
        )
        return _samples(views, disturbed(views.depth_m, generator), RENDERED)

    @torch.no_grad()
    def generated(
        self,
        drawn: DrawnClips,
        video: Float[Tensor, "b t 3 h w"],
        depth_m: Float[Tensor, "b t h w"],
        times: Int[Tensor, "b 4"],
        *,
        colors: int,
        is_estimated: bool = False,
    ) -> DetailSamples:
        """Samples of videos that a model made of rendered first frames.

        Args:
            drawn: the worlds and cameras of the videos.
            video: in [-1, 1].
            depth_m: by which they were made, known of every eighth frame; if estimated, of the first.
            times: of draw_times.
            colors: seed of the generator that jittered the colours of the first frames.
            is_estimated: whether depth was estimated: such videos do not lie where the truth does, which they need not
                meet then.
        """
        views = self._render(drawn, times)
        views = replace(views, rgb=jitter_colors(views.rgb, torch.Generator().manual_seed(colors), mirror=False))
        rows = torch.arange(len(times), device=video.device)
        at = times.to(video.device)
        low = {
            name: _bytes((video[rows, at[:, i]].float() + 1) / 2)
            for i, name in ((1, "earlier"), (2, "key"), (3, "frame"))
        }
        if is_estimated:
            pictures = torch.stack([low["earlier"], low["earlier"], low["key"], low["frame"]], 1).float() / 255
            known = self._estimated(pictures, views)
            known[:, 0] = depth_m[:, 0]
        else:
            known = torch.stack([depth_m[rows, at[:, i]] for i in range(3)] + [views.depth_m[:, 3]], 1)
        made = _samples(views, known, GENERATED)
        seen = [_seen(views, i) & (not is_estimated) for i in range(4)]
        # of what the video invented there is no truth: its own frame stands for the earlier picture
        smooth = functional.interpolate(low["earlier"].float(), scale_factor=float(FACTOR), mode="bicubic")
        mask = functional.interpolate(seen[1][:, None].float(), scale_factor=float(FACTOR), mode="nearest") > 0
        earlier = torch.where(mask, made.earlier.float(), smooth).round().clamp(0, 255).to(torch.uint8)
        return replace(
            made, earlier=earlier, low_key=low["key"], low_frame=low["frame"], seen_key=seen[2], seen_frame=seen[3]
        )

    def _render(self, drawn: DrawnClips, times: Int[Tensor, "b 4"]) -> _Views:
        height, width = self.worlds.size
        at = times.to(drawn.cam_to_world.device)
        poses = drawn.cam_to_world.gather(1, at[:, :, None, None].expand(-1, -1, 4, 4))
        K = drawn.intrinsics[:, :1].expand(-1, 4, -1, -1).contiguous()
        fine = _scaled(K, float(FACTOR))
        pictures, deep = [], []
        # a frame of every scene at a time: the temporaries of all at once would fill a card
        for i in range(4):
            one = slice(i, i + 1)
            size = (FACTOR * height, FACTOR * width)
            pictures.append(
                render_color(drawn.scenes, poses[:, one], fine[:, one], *size, supersample=self.supersample)
            )
            low = render_frames(drawn.scenes, poses[:, one], K[:, one], height, width, supersample=1, shadows=False)
            deep.append(torch.where(low.sky, SKY_DEPTH_M, low.depth_m))
        return _Views(
            rgb=torch.cat(pictures, 1).permute(0, 1, 4, 2, 3).contiguous(),
            depth_m=torch.cat(deep, 1),
            world_to_cam=torch.linalg.inv(poses),
            intrinsics=K,
        )

    def _known_depth(self, views: _Views, generator: torch.Generator) -> Float[Tensor, "b 4 h w"]:
        """True depth, with made-up errors, or as the depth network sees the frames, in shares of 3:3:4."""
        b = len(views.rgb)
        low = functional.avg_pool2d(views.rgb.flatten(0, 1), FACTOR).clamp(0, 1)
        estimated = self._estimated(low.unflatten(0, (b, 4)), views)
        made_up = disturbed(views.depth_m, generator)
        draw = torch.rand(b, 1, 1, 1, generator=generator).to(estimated.device)
        return torch.where(draw < 0.3, views.depth_m, torch.where(draw < 0.6, made_up, estimated))

    def _estimated(self, low: Float[Tensor, "b 4 3 h w"], views: _Views) -> Float[Tensor, "b 4 h w"]:
        """Depth of frames each looked at alone, in the scale of the truth."""
        sight = see_single(self.depth, low.flatten(0, 1), views.intrinsics.flatten(0, 1))
        depth_m, sky = (x.unflatten(0, (len(low), 4)) for x in (sight.depth_m, sight.sky))
        both = ~sky & (views.depth_m < SKY_DEPTH_M) & (views.depth_m > 0)
        logs = torch.where(both, torch.log(views.depth_m.clamp(min=1e-6) / depth_m), torch.nan)
        factor = torch.nan_to_num(logs.flatten(2).nanmedian(2).values).exp()[:, :, None, None]
        return torch.where(sky, SKY_DEPTH_M, depth_m * factor)


def disturbed(depth_m: Float[Tensor, "b t h w"], generator: torch.Generator) -> Float[Tensor, "b t h w"]:
    """Depth off by smooth factors, edges blurred in half of the samples: as an estimator is wrong."""
    b, t, h, w = depth_m.shape
    amount = SMOOTH_ERROR * 2 * torch.rand(b, 1, 1, 1, generator=generator)
    total = torch.zeros_like(depth_m)
    for share, size in ((1.0, (4, 6)), (0.33, (16, 28))):
        noise = torch.randn(b, t, *size, generator=generator) * amount * share
        total = total + functional.interpolate(noise.to(depth_m), (h, w), mode="bilinear", align_corners=True)
    inverse = torch.where(depth_m > 0, 1 / depth_m.clamp(min=1e-6), torch.zeros_like(depth_m))
    blurred = functional.avg_pool2d(functional.pad(inverse, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    is_blurred = (torch.rand(b, 1, 1, 1, generator=generator) < 0.5).to(depth_m.device)
    inverse = torch.where(is_blurred & (inverse > 0), blurred, inverse)
    return torch.where(inverse > 0, torch.exp(total) / inverse.clamp(min=1e-6), torch.zeros_like(inverse))


def _samples(views: _Views, known_m: Float[Tensor, "b 4 h w"], kind: int) -> DetailSamples:
    w2c, K = views.world_to_cam, views.intrinsics
    seed, earlier, key, frame = (_bytes(views.rgb[:, i]) for i in range(4))

    def between(depth_m: Tensor, source: int, target: int) -> BackwardWarp:
        return backward_warp(depth_m[:, source], w2c[:, source], K[:, source], w2c[:, target], K[:, target])

    low = seed.new_zeros(len(seed), 3, *views.depth_m.shape[2:])
    everywhere = torch.ones_like(low[:, 0], dtype=torch.bool)
    return DetailSamples(
        seed=seed,
        earlier=earlier,
        key=key,
        frame=frame,
        low_key=low,
        low_frame=low,
        seen_key=everywhere,
        seen_frame=everywhere,
        kind=torch.full((len(seed),), kind, device=seed.device),
        seed_to_key=between(known_m, 0, 2),
        seed_to_frame=between(known_m, 0, 3),
        earlier_to_key=between(known_m, 1, 2),
        key_to_frame=between(known_m, 2, 3),
        truly=between(views.depth_m, 2, 3),
    )


def _seen(views: _Views, frame: int) -> Bool[Tensor, "b h w"]:
    """Pixels of a frame whose surface the seed shows, by true depth: nearest pixel, within 3 %."""
    h, w = views.depth_m.shape[2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).to(views.depth_m).flatten(0, 1)
    depth = views.depth_m[:, frame].flatten(1)
    points = (pixels @ torch.linalg.inv(views.intrinsics[:, frame]).mT) * depth[..., None]
    relative = views.world_to_cam[:, 0] @ torch.linalg.inv(views.world_to_cam[:, frame])
    there = points @ relative[:, :3, :3].mT + relative[:, None, :3, 3]
    z = there[..., 2].clamp(min=1e-6)
    image = there @ views.intrinsics[:, 0].mT / z[..., None]
    grid = torch.stack([image[..., 0] * (2 / w) - 1, image[..., 1] * (2 / h) - 1], -1)[:, None]
    inverse = 1 / views.depth_m[:, 0].clamp(min=1e-6)
    sampled = functional.grid_sample(
        inverse[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    inside = (grid[:, 0].abs() <= 1).all(-1) & (there[..., 2] > 1e-6)
    return (((1 / sampled[:, 0, 0].clamp(min=1e-9) - z).abs() <= 0.03 * z) & inside).unflatten(1, (h, w))


def _scaled(intrinsics: Float[Tensor, "b t 3 3"], factor: float) -> Float[Tensor, "b t 3 3"]:
    """Intrinsics of images of another resolution; pixel centres lie at +0.5."""
    scaled = intrinsics.clone()
    scaled[..., :2, :] *= factor
    return scaled


def _bytes(images: Float[Tensor, "*k 3 h w"]) -> UInt8[Tensor, "*k 3 h w"]:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
