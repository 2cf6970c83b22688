"""Posed windows of procedural worlds with exact depth, drawn on the device that trains: the depth network's data.

    source = WindowSource(config, "train", device)
    windows = source.draw(32, generator)

Shape legend: b windows, t frames of each, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float16, Int, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import ConfigError
from lyra_core.procedural.atlas import build_atlas
from lyra_core.procedural.world_clips import PathPlan, WorldLibrary, load_views, sample_views
from lyra_core.procedural.worlds import render_frames

FIRST_BATCHES = 16  # that the pool holds before the first step
FARTHEST_M = 6e4  # what half precision holds
LUMA = (0.299, 0.587, 0.114)
DEPTH_PATHS = PathPlan(
    num_frames=65,
    names=(
        "wander",
        "orbit-left",
        "wander",
        "dolly-in",
        "truck-right",
        "wander-and-return",
        "wander",
        "pan-right",
        "arc-right",
        "truck-left",
        "wander",
        "zoom-out",
        "orbit-right",
    ),
    takes=3,
)
"""Mostly motions with parallax."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """What the windows show.

    Attributes:
        height: rows, a multiple of 8.
        width: columns, a multiple of 8.
        num_frames: of a window.
        num_scenes: procedural scenes to learn from.
        num_held_out: procedural scenes to measure on.
        takes: camera paths a scene.
        views: file of camera paths (see world_clips.save_views) made with DEPTH_PATHS, or None to search for them.
        textures_per_kind: procedural textures of each kind.
        texture_size: texels of a side.
        photographs: folder of photographs for textures, or None.
        supersample: rays along each side of a pixel.
        pool_windows: windows kept on the device and drawn from; 0 draws every batch anew (a resumed run is then the
            same bit for bit).
        fresh_windows: windows that replace old ones of the pool a step.
    """

    height: int = 128
    width: int = 224
    num_frames: int = 6
    num_scenes: int = 1024
    num_held_out: int = 44
    takes: int = 3
    views: Path | None = None
    textures_per_kind: int = 16
    texture_size: int = 256
    photographs: Path | None = None
    supersample: int = 2
    pool_windows: int = 10_000
    fresh_windows: int = 12

    def __post_init__(self) -> None:
        if self.height % 8 or self.width % 8 or self.num_frames < 2:
            raise ConfigError(
                "windows need sides that are multiples of 8 and two frames, found "
                f"{self.width}x{self.height} and {self.num_frames}"
            )
        if self.fresh_windows < 1 or 0 < self.pool_windows < self.fresh_windows:
            raise ConfigError(
                f"a pool holds at least one refresh, found {self.pool_windows} and fresh_windows {self.fresh_windows}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Frames with exact depth and cameras, all on one device.

    Attributes:
        rgb: sRGB in 0..1. [b t 3 h w]
        depth_m: z-depth, 0 where sky. [b t h w]
        world_to_cam: OpenCV, metres, in the frame of each window's first camera. [b t 4 4]
        intrinsics: pixels, centres at +0.5. [b t 3 3]
    """

    rgb: Float[Tensor, "b t 3 h w"]
    depth_m: Float[Tensor, "b t h w"]
    world_to_cam: Float[Tensor, "b t 4 4"]
    intrinsics: Float[Tensor, "b t 3 3"]

    @property
    def sky(self) -> Bool[Tensor, "b t h w"]:
        """True where nothing is hit."""
        return self.depth_m <= 0

    def __len__(self) -> int:
        return int(self.rgb.shape[0])

    def frames(self, which: Sequence[int]) -> Windows:
        """Some frames of every window."""
        some = list(which)
        return Windows(
            rgb=self.rgb[:, some],
            depth_m=self.depth_m[:, some],
            world_to_cam=self.world_to_cam[:, some],
            intrinsics=self.intrinsics[:, some],
        )

    def rows(self, which: slice | Tensor) -> Windows:
        """Some windows."""
        return Windows(
            rgb=self.rgb[which],
            depth_m=self.depth_m[which],
            world_to_cam=self.world_to_cam[which],
            intrinsics=self.intrinsics[which],
        )

    def single_images(self) -> Windows:
        """Every frame as a window of its own."""
        one = {name: getattr(self, name).flatten(0, 1)[:, None] for name in ("rgb", "depth_m", "intrinsics")}
        return Windows(**one, world_to_cam=torch.eye(4, device=self.rgb.device).expand(len(one["rgb"]), 1, 4, 4))


class WindowSource:
    """Windows of one split."""

    def __init__(
        self, config: WindowConfig, split: str, device: str | torch.device, workers: Executor | None = None
    ) -> None:
        self.config, self.device = config, torch.device(device)
        is_train = split == "train"
        atlas = build_atlas(
            split,
            per_kind=config.textures_per_kind if is_train else max(2, config.textures_per_kind // 4),
            size=config.texture_size,
            photographs=config.photographs,
            workers=workers,
        ).to(device)
        seeds = range(config.num_scenes if is_train else config.num_held_out)
        plan = replace(DEPTH_PATHS, takes=config.takes)
        if config.views is None:
            views = sample_views(seeds, split, plan, (config.height, config.width), workers)
        else:
            views = load_views(config.views, split)
        self.library = WorldLibrary(
            seeds,
            split,
            atlas,
            size=(config.height, config.width),
            plan=plan,
            views=views,
        )

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Windows:
        """Random windows at random paces, all of one sort of ground.

        Args:
            count: windows.
            generator: on the CPU.
        """
        which = int(torch.multinomial(self.library.sizes, 1, generator=generator))
        shelf = self.library.shelves[which]
        scene = torch.randint(len(shelf.scenes), (count,), generator=generator)
        take = torch.randint(shelf.cam_to_world.shape[1], (count,), generator=generator)
        longest = (self.library.plan.num_frames - 1) // (self.config.num_frames - 1)
        stride = torch.randint(1, longest + 1, (count,), generator=generator)
        share = torch.rand(count, generator=generator)
        return self._windows(which, scene, take, stride, share)

    @torch.no_grad()
    def one_of_each(self, count: int) -> Windows:
        """Fixed windows of `count` different scenes, as many as there are at most."""
        parts = []
        for which, shelf in enumerate(self.library.shelves):
            scene = torch.arange(len(shelf.scenes))
            paces = torch.tensor([3, 6, 9, 12]).clamp(
                max=(self.library.plan.num_frames - 1) // (self.config.num_frames - 1)
            )
            parts.append(self._windows(which, scene, 0 * scene, paces[scene % 4], 0.3 + 0 * scene.float()))
        joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("rgb", "depth_m", "world_to_cam", "intrinsics")
        }
        return Windows(**joined).rows(slice(0, count))

    def _windows(
        self, which: int, scene: Int[Tensor, " b"], take: Int[Tensor, " b"], stride: Int[Tensor, " b"], share: Tensor
    ) -> Windows:
        shelf, config = self.library.shelves[which], self.config
        room = self.library.plan.num_frames - 1 - stride * (config.num_frames - 1)
        index = (share * (room + 1)).floor().long()[:, None] + stride[:, None] * torch.arange(config.num_frames)
        scene, take, index = (sent(drawn, self.device) for drawn in (scene, take, index))
        c2w = shelf.cam_to_world[scene[:, None], take[:, None], index]
        intrinsics = shelf.intrinsics[scene, take][:, None].expand(-1, config.num_frames, -1, -1).contiguous()
        parts = []
        # A processor draws one window at a time: its temporaries are those of all rays.
        for part in torch.arange(len(scene)).split(len(scene) if self.device.type == "cuda" else 1):
            at = sent(part, self.device)
            drawn = render_frames(
                shelf.scenes[scene[at]],
                c2w[at],
                intrinsics[at],
                config.height,
                config.width,
                supersample=config.supersample,
            )
            parts.append((drawn.rgb, drawn.depth_m))
        rgb, depth = (torch.cat([part[i] for part in parts]) for i in range(2))
        return Windows(
            rgb=rgb.permute(0, 1, 4, 2, 3),
            depth_m=depth,
            world_to_cam=torch.linalg.inv(c2w) @ c2w[:, :1],
            intrinsics=intrinsics,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWindows:
    """Windows in half the memory or less; fields as Windows."""

    rgb: UInt8[Tensor, "b t 3 h w"]
    depth_m: Float16[Tensor, "b t h w"]
    world_to_cam: Float[Tensor, "b t 4 4"]
    intrinsics: Float[Tensor, "b t 3 3"]

    @classmethod
    def of(cls, windows: Windows) -> PackedWindows:
        """Colours in 8 bits, depth in half precision."""
        return cls(
            rgb=(windows.rgb * 255).round().to(torch.uint8),
            depth_m=windows.depth_m.clamp(max=FARTHEST_M).half(),
            world_to_cam=windows.world_to_cam,
            intrinsics=windows.intrinsics,
        )

    @staticmethod
    def unpacked(parts: Sequence[PackedWindows], rows: Sequence[int]) -> Windows:
        """One row of each part, as a batch."""
        joined = {
            name: torch.stack([getattr(part, name)[row] for part, row in zip(parts, rows, strict=True)]).float()
            for name in ("rgb", "depth_m", "world_to_cam", "intrinsics")
        }
        return Windows(**{**joined, "rgb": joined["rgb"] / 255})


class WindowPool:
    """Windows on the device, partly replaced each step: drawing one is dearer than a second look at it."""

    def __init__(self, source: WindowSource, batch: int, generator: torch.Generator) -> None:
        self.source, self.batch, self.cursor = source, batch, 0
        self.kept: list[PackedWindows] = []
        while source.config.pool_windows and self._filled() < min(FIRST_BATCHES * batch, source.config.pool_windows):
            self._refresh(generator)

    def _filled(self) -> int:
        return len(self.kept) * self.source.config.fresh_windows

    def _refresh(self, generator: torch.Generator) -> None:
        config = self.source.config
        fresh = PackedWindows.of(self.source.draw(config.fresh_windows, generator))
        if self._filled() + config.fresh_windows <= config.pool_windows:
            self.kept.append(fresh)
            return
        self.kept[self.cursor] = fresh
        self.cursor = (self.cursor + 1) % len(self.kept)

    def draw(self, generator: torch.Generator) -> Windows:
        """A batch."""
        if not self.source.config.pool_windows:
            return self.source.draw(self.batch, generator)
        self._refresh(generator)
        # Whole refreshes are of one ground; a batch is mixed from many of them.
        which = torch.randint(len(self.kept), (self.batch,), generator=generator).tolist()
        rows = torch.randint(self.source.config.fresh_windows, (self.batch,), generator=generator).tolist()
        return PackedWindows.unpacked([self.kept[i] for i in which], rows)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the processor on the device, without waiting for what the device does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def vary_colors(rgb: Float[Tensor, "b t 3 h w"], generator: torch.Generator) -> Float[Tensor, "b t 3 h w"]:
    """Pictures as many cameras would take them: gain, gamma, saturation, swapped channels, flicker, blur and noise.

    Photographs have no depth to learn from: what the network knows of procedural worlds must not hang on their look.

    Args:
        rgb: sRGB in 0..1.
        generator: on the CPU.
    """
    b, t, device = rgb.shape[0], rgb.shape[1], rgb.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return sent(low + (high - low) * torch.rand(*shape, generator=generator), device)

    swapped = (torch.rand(b, generator=generator) < 0.15)[:, None]
    order = torch.argsort(torch.rand(b, 3, generator=generator), dim=1)
    order = sent(torch.where(swapped, order, torch.arange(3).expand(b, 3)), device)
    rgb = torch.gather(rgb, 2, order[:, None, :, None, None].expand_as(rgb))
    gray = (LUMA[0] * rgb[:, :, 0] + LUMA[1] * rgb[:, :, 1] + LUMA[2] * rgb[:, :, 2])[:, :, None]
    rgb = gray + uniform(0.2, 1.4, b, 1, 1, 1, 1) * (rgb - gray)
    gamma = torch.exp(uniform(-0.6, 0.6, b, 1, 1, 1, 1))
    gain = uniform(0.6, 1.3, b, 1, 1, 1, 1) * uniform(0.85, 1.15, b, 1, 3, 1, 1) * uniform(0.97, 1.03, b, t, 1, 1, 1)
    rgb = rgb.clamp(min=1e-4) ** gamma * gain
    soft = functional.avg_pool2d(rgb.flatten(0, 1), 3, 1, 1, count_include_pad=False).reshape(rgb.shape)
    rgb = torch.lerp(rgb, soft, uniform(-0.4, 1.0, b, 1, 1, 1, 1))
    device_generator = torch.Generator(device)
    device_generator.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    noise = torch.randn(rgb.shape, generator=device_generator, device=device)
    return (rgb + uniform(0.0, 0.03, b, 1, 1, 1, 1) * noise).clamp(0.0, 1.0)
