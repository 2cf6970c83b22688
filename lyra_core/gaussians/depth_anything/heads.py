"""Dense prediction heads of Depth Anything 3: depth with confidence and rays, or metric depth with
sky.

All heads share one scheme (DPT, arXiv 2103.13413): four token levels become a pyramid, the pyramid
is fused from coarse to fine, and small convolutions read the result. Parameter names are those of
the released checkpoints. Shape legend: v views, n patches, c channels, r s patch rows and columns,
h w pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.gaussians.depth_anything.config import PATCH, HeadConfig

VIEWS_PER_SLICE = 8
READOUT = 32
RAY_CHANNELS = 7  # origin, direction, confidence
RAY_LEVELS = 4
UV_STRENGTH = 0.1
UV_BASE = 100.0
# Beyond this count of values the CUDA upsampling kernels' 32-bit indices overflow.
MAX_INTERPOLATED = 1_610_612_736


@dataclass(frozen=True, slots=True, kw_only=True)
class DualPrediction:
    """What the any-view head says.

    Attributes:
        depth: z-depth up to the scene's scale. [v h w]
        confidence: at least 1. [v h w]
        rays: camera-frame-free origin and direction, at 8/14 of the resolution, or None if not
            asked for. [v a b 6]
        ray_confidence: at least 1. [v a b], or None
    """

    depth: Float[Tensor, "v h w"]
    confidence: Float[Tensor, "v h w"]
    rays: Float[Tensor, "v a b 6"] | None = None
    ray_confidence: Float[Tensor, "v a b"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPrediction:
    """What the single-view head says.

    Attributes:
        depth: z-depth in metres for a camera of 300 pixels focal length. [v h w]
        sky: score, sky above 0.3. [v h w]
    """

    depth: Float[Tensor, "v h w"]
    sky: Float[Tensor, "v h w"]


def upsample(x: Float[Tensor, "v c h w"], size: tuple[int, int]) -> Float[Tensor, "v c p q"]:
    """Bilinear resize with aligned corners, in parts where one call would overflow the kernel's
    indices.
    """
    total = x.shape[0] * x.shape[1] * size[0] * size[1]
    parts = x.chunk(total // MAX_INTERPOLATED + 1)
    out = [functional.interpolate(p, size=size, mode="bilinear", align_corners=True) for p in parts]
    return out[0] if len(out) == 1 else torch.cat(out)


def uv_embedding(height: int, width: int, channels: int, aspect: float, device: torch.device) -> Tensor:
    """Sinusoids of the position in the image plane, whose half diagonal is 1 and whose border is
    inset half a cell.

    Args:
        height: rows of the map.
        width: columns of it.
        channels: multiple of 4: sine and cosine of x, then of y.
        aspect: width / height of the image (not of the map).
        device: where to make it.

    Returns:
        [channels height width]
    """
    diagonal = (aspect**2 + 1.0) ** 0.5
    axes = []
    for span, steps in ((aspect / diagonal, width), (1.0 / diagonal, height)):
        edge = span * (steps - 1) / steps
        axes.append(torch.linspace(-edge, edge, steps, device=device, dtype=torch.float32))
    quarter = channels // 4
    omega = UV_BASE ** -(torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    x, y = (axis[:, None] * omega for axis in axes)
    x = torch.cat([x.sin(), x.cos()], dim=1).mT[:, None, :].expand(-1, height, -1)
    y = torch.cat([y.sin(), y.cos()], dim=1).mT[:, :, None].expand(-1, -1, width)
    return torch.cat([x, y])


def add_uv(x: Float[Tensor, "v c h w"], aspect: float) -> Float[Tensor, "v c h w"]:
    """x plus a tenth of the position embedding."""
    return x + UV_STRENGTH * uv_embedding(x.shape[2], x.shape[3], x.shape[1], aspect, x.device)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions around a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Float[Tensor, "v c h w"]) -> Float[Tensor, "v c h w"]:
        """x + conv(relu(conv(relu(x))))."""
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class FusionBlock(nn.Module):
    """Adds a level to what came from below and resizes the sum to the next level."""

    def __init__(self, features: int, *, lateral: bool = True) -> None:
        super().__init__()
        if lateral:
            self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(
        self,
        x: Float[Tensor, "v c h w"],
        lateral: Float[Tensor, "v c h w"] | None,
        size: tuple[int, int],
    ) -> Float[Tensor, "v c p q"]:
        """One fusion step."""
        if lateral is not None:
            x = x + self.resConfUnit1(lateral)
        return self.out_conv(upsample(self.resConfUnit2(x), size))


def readout(features: int, out_channels: int) -> nn.Sequential:
    """3x3 to 32 channels, ReLU, 1x1 to the output."""
    return nn.Sequential(nn.Conv2d(features, READOUT, 3, padding=1), nn.ReLU(), nn.Conv2d(READOUT, out_channels, 1))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an image."""

    def forward(self, x: Float[Tensor, "v c h w"]) -> Float[Tensor, "v c h w"]:
        """Normalise each pixel."""
        return rearrange(super().forward(rearrange(x, "v c h w -> v h w c")), "v h w c -> v c h w")


class CellUpsample(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride, as one product for each input pixel.

    Its cells do not overlap, so nothing is accumulated: unlike cuDNN's transposed convolution,
    which may add in any order, this gives the same bits at every call.
    """

    def forward(
        self,
        x: Float[Tensor, "v i h w"],
        output_size: list[int] | None = None,  # noqa: ARG002 - the signature it overrides
    ) -> Float[Tensor, "v o p q"]:
        """Each pixel becomes a cell of stride x stride pixels."""
        weight = rearrange(self.weight, "i o a b -> (o a b) i 1 1")
        cells = functional.pixel_shuffle(functional.conv2d(x, weight), self.stride[0])
        return cells if self.bias is None else cells + self.bias[:, None, None]


class PyramidHead(nn.Module):
    """The part all heads share: token levels to one fused map of features / 2 channels.

    Args:
        dim: channels of the incoming tokens.
        config: widths.
        norm: whether tokens pass a LayerNorm first.
        uv: whether positions are added to the levels.
    """

    def __init__(self, dim: int, config: HeadConfig, *, norm: bool, uv: bool) -> None:
        super().__init__()
        self.uv = uv
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()
        widths, features = config.out_channels, config.features
        self.projects = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            [
                CellUpsample(widths[0], widths[0], 4, stride=4),
                CellUpsample(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = nn.ModuleDict()
        for level, width in enumerate(widths, start=1):
            conv = nn.Conv2d(width, features, 3, padding=1, bias=False)
            self.scratch[f"layer{level}_rn"] = conv
        self._add_fusions(features, "")
        self.scratch["output_conv1"] = nn.Conv2d(features, features // 2, 3, padding=1)

    def _add_fusions(self, features: int, suffix: str) -> None:
        for level in range(1, 5):
            self.scratch.add_module(f"refinenet{level}{suffix}", FusionBlock(features, lateral=level < 4))

    def pyramid(self, levels: Sequence[Float[Tensor, "v n c"]], rows: int, cols: int) -> list[Tensor]:
        """Tokens to four maps of equal width, at 4, 2, 1 and 1/2 times the patch grid."""
        maps = []
        for i, tokens in enumerate(levels):
            x = rearrange(self.norm(tokens), "v (r s) c -> v c r s", r=rows, s=cols)
            x = self.projects[i](x)
            if self.uv:
                x = add_uv(x, cols / rows)
            maps.append(self.scratch[f"layer{i + 1}_rn"](self.resize_layers[i](x)))
        return maps

    def fuse(self, maps: list[Tensor], suffix: str = "") -> Tensor:
        """From coarse to fine, ending at twice the finest level. [v features 8r 8s]"""
        x: Tensor | None = None
        for level in (4, 3, 2, 1):
            lateral = maps[level - 1]
            size = tuple(maps[level - 2].shape[2:]) if level > 1 else (2 * lateral.shape[2], 2 * lateral.shape[3])
            block = self.scratch[f"refinenet{level}{suffix}"]
            x = block(lateral, None, size) if x is None else block(x, lateral, size)
        assert x is not None  # noqa: S101 - the loop ran four times
        return x


def slices(levels: Sequence[Float[Tensor, "v n c"]], views_per_slice: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """The four levels, a few views at a time and in fp32: bounds the memory of the full-resolution
    maps.
    """
    for start in range(0, levels[0].shape[0], views_per_slice):
        part = slice(start, start + views_per_slice)
        yield part, [level[part].float() for level in levels]


class DualHead(PyramidHead):
    """Depth with confidence and, from a fusion chain of its own, one ray for each map cell."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__(dim, config, norm=True, uv=True)
        wide, narrow = config.features, config.features // 2
        self.scratch["output_conv2"] = readout(narrow, 2)
        self._add_fusions(wide, "_aux")
        neck = (wide, narrow, wide, narrow, wide, narrow)
        # Levels 0 to 2 were trained with losses of their own and are never read again; checkpoints
        # hold them.
        self.scratch["output_conv1_aux"] = nn.ModuleList(
            nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(neck))) for _ in range(RAY_LEVELS)
        )
        self.scratch["output_conv2_aux"] = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, READOUT, 3, padding=1),
                nn.Identity(),
                ChannelNorm(READOUT),
                nn.Identity(),
                nn.ReLU(),
                nn.Conv2d(READOUT, RAY_CHANNELS, 1),
            )
            for _ in range(RAY_LEVELS)
        )

    def forward(
        self,
        levels: Sequence[Float[Tensor, "v n c"]],
        rows: int,
        cols: int,
        *,
        with_rays: bool = False,
        views_per_slice: int = VIEWS_PER_SLICE,
    ) -> DualPrediction:
        """Predict, a slice of views at a time."""
        parts = [self._predict(level, rows, cols, with_rays) for _, level in slices(levels, views_per_slice)]
        depth, confidence = (torch.cat([p[i] for p in parts]) for i in range(2))
        if not with_rays:
            return DualPrediction(depth=depth, confidence=confidence)
        rays, ray_confidence = (torch.cat([p[i] for p in parts]) for i in range(2, 4))
        return DualPrediction(depth=depth, confidence=confidence, rays=rays, ray_confidence=ray_confidence)

    def _predict(self, levels: list[Tensor], rows: int, cols: int, with_rays: bool) -> list[Tensor]:
        aspect = cols / rows
        maps = self.pyramid(levels, rows, cols)
        x = upsample(self.scratch["output_conv1"](self.fuse(maps)), (rows * PATCH, cols * PATCH))
        logits = self.scratch["output_conv2"](add_uv(x, aspect))
        out = [logits[:, 0].exp(), logits[:, 1].exp() + 1.0]
        if with_rays:
            x = self.scratch.get_submodule(f"output_conv1_aux.{RAY_LEVELS - 1}")(self.fuse(maps, "_aux"))
            logits = self.scratch.get_submodule(f"output_conv2_aux.{RAY_LEVELS - 1}")(add_uv(x, aspect))
            out += [rearrange(logits[:, :6], "v c h w -> v h w c"), logits[:, 6].exp() + 1.0]
        return out


class MetricHead(PyramidHead):
    """Depth of a canonical camera, and a sky score."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__(dim, config, norm=False, uv=False)
        self.scratch["output_conv2"] = readout(config.features // 2, 1)
        self.scratch["sky_output_conv2"] = readout(config.features // 2, 1)

    def forward(
        self,
        levels: Sequence[Float[Tensor, "v n c"]],
        rows: int,
        cols: int,
        *,
        views_per_slice: int = VIEWS_PER_SLICE,
    ) -> MetricPrediction:
        """Predict, a slice of views at a time."""
        depth, sky = [], []
        for _, level in slices(levels, views_per_slice):
            x = self.scratch["output_conv1"](self.fuse(self.pyramid(level, rows, cols)))
            x = upsample(x, (rows * PATCH, cols * PATCH))
            depth.append(self.scratch["output_conv2"](x)[:, 0].exp())
            sky.append(self.scratch["sky_output_conv2"](x)[:, 0].relu())
        return MetricPrediction(depth=torch.cat(depth), sky=torch.cat(sky))
