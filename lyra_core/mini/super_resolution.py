"""Super-resolution of the mini model's frames, guided by pictures of full size that show the same surfaces.

Two pictures are warped to each frame (lyra_core.mini.backward_warp): the photograph the world begins with, and an
earlier enlarged frame, so that what was invented once stays. In the literature: reference-based super-resolution (Zheng
et al. 2018, "CrossNet"; Jiang et al. 2021, "Robust Reference-based Super-Resolution via C2-Matching").

    frame, low ---------------------------------------------- bicubic ------------------------+
       |                                                                                      |
       +-- align: small shifts of the warped pictures' coordinates                           |
       |                                                                                      v
       +-- trunk (frame; warped pictures, 4x4 pixels as channels; cover) -- residual, weights: sum --> frame, full size
                                                                                              ^
    warped pictures: their detail within each 4x4 block -------------------------------------+

Legend: b frames, h w pixels of low resolution, H W = 4h 4w, u = 16 pixels of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.errors import ConfigError
from lyra_core.mini.backward_warp import BackwardWarp, SamplePoints, sample, sample_points
from lyra_core.native import MINI_ENLARGED

FACTOR = MINI_ENLARGED
BLOCK = FACTOR * FACTOR
INPUTS = 3 * BLOCK + 2
"""Channels of the network's input for each reference: pixels of a block, cover, logarithm of the ratio."""
SOURCES = 2
"""The photograph, and an earlier enlarged frame."""
MAX_SHIFT_PX = 2.0
"""Of coordinates, low-resolution pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperResolutionConfig:
    """Widths of the network.

    Attributes:
        dims: channels at low resolution and at half of it.
        blocks: residual blocks before, at and after half the resolution.
        align_dim: channels of the network that aligns the warped pictures; 0 leaves them where they are.
    """

    dims: tuple[int, int] = (48, 96)
    blocks: tuple[int, int, int] = (1, 4, 2)
    align_dim: int = 32

    def __post_init__(self) -> None:
        if min(self.dims) < 1 or min(self.blocks) < 0 or self.align_dim < 0:
            raise ConfigError(f"widths of super-resolution are positive, found {self}")


TINY_SUPER_RESOLUTION = SuperResolutionConfig(dims=(16, 16), blocks=(1, 1, 1), align_dim=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A picture of full size that shows what frames show.

    Attributes:
        levels: its pyramid (lyra_core.mini.backward_warp.pyramid), in [-1, 1]; one picture a frame.
        coarse: the picture at low resolution. [b 3 r q]
        warp: where the frames find their pixels in it.
        corner: row and column of low resolution at which the frames begin, where they are parts of frames.
        start: row and column at which the picture begins, where it is part of one.
    """

    levels: Sequence[Tensor]
    coarse: Float[Tensor, "b 3 r q"]
    warp: BackwardWarp
    corner: tuple[int, int] = (0, 0)
    start: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the picture at low resolution."""
        return int(self.coarse.shape[2]), int(self.coarse.shape[3])

    def sample_points(self, factor: int, shift: Float[Tensor, "b 2 h w"] | None = None) -> SamplePoints:
        """Coordinates in the picture, shifted by low-resolution pixels."""
        coordinates = sample_points(self.warp, factor, self.corner)
        at = coordinates.at - coordinates.at.new_tensor([self.start[1], self.start[0]])
        if shift is not None:
            moved = shift
            if factor > 1:
                moved = functional.interpolate(shift, scale_factor=float(factor), mode="bilinear", align_corners=False)
            at = at + moved.movedim(1, -1)
        return SamplePoints(at=at, ratio=coordinates.ratio)

    def seen_coarse(self) -> Warped:
        """The picture at low resolution as the frames' cameras see it; nothing beyond its border."""
        where = self.sample_points(1)
        height, width = self.size
        x, y = where.at.unbind(-1)
        inside = (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
        return Warped(
            picture=sample([self.coarse], where, self.size),
            cover=(self.warp.cover * inside)[:, None],
            ratio=where.ratio[:, None],
        )

    def seen(self, coarse: Warped, shift: Float[Tensor, "b 2 h w"] | None) -> Warped:
        """The picture of full size as the frames' cameras see it."""
        picture = sample(self.levels, self.sample_points(FACTOR, shift), self.size)
        return Warped(picture=picture, cover=coarse.cover, ratio=coarse.ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warped:
    """A reference as the frames' cameras see it.

    Attributes:
        picture: in [-1, 1]. [b 3 H W]
        cover: as of the warp. [b 1 h w]
        ratio: pixels of the reference that a pixel of the frame covers, along an axis. [b 1 h w]
    """

    picture: Float[Tensor, "b 3 H W"]
    cover: Float[Tensor, "b 1 h w"]
    ratio: Float[Tensor, "b 1 h w"]


def _set_to_zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with output 0 until it has learned."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


class _Block(nn.Module):
    """Two convolutions added to the input; begins as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        _set_to_zero(self.conv2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the block computes."""
        return x + self.conv2(functional.silu(self.conv1(x)))


def _blocks(dim: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(dim) for _ in range(count)))


class _Align(nn.Module):
    """How far a warped picture lies beside the frame, at half the low resolution; begins with no shift at all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(7, dim, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(dim, dim, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.SiLU(),
            _set_to_zero(nn.Conv2d(dim, 2, 3, padding=1)),
        )

    def forward(self, low: Tensor, warped: Tensor, cover: Tensor) -> Float[Tensor, "b 2 h w"]:
        """Shift of the coordinates, low-resolution pixels."""
        shift = self.layers(torch.cat([low, warped * cover, cover], dim=1)).float()
        size = (int(low.shape[2]), int(low.shape[3]))
        return MAX_SHIFT_PX * torch.tanh(functional.interpolate(shift, size, mode="bilinear", align_corners=False))


class SuperResolution(nn.Module):
    """Frames four times as large, from themselves and two references: the photograph and an earlier enlarged frame."""

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.config = config
        dim, half = config.dims
        self.align = _Align(config.align_dim) if config.align_dim else None
        self.stem = nn.Conv2d(3 + SOURCES * INPUTS, dim, 3, padding=1)
        self.before = _blocks(dim, config.blocks[0])
        self.down = nn.Conv2d(dim, half, 4, stride=2, padding=1)
        self.middle = _blocks(half, config.blocks[1])
        self.up = nn.Conv2d(half, 4 * dim, 1)
        self.after = _blocks(dim, config.blocks[2])
        self.head = _set_to_zero(nn.Conv2d(dim, 3 * BLOCK + SOURCES * BLOCK, 3, padding=1))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which the trunk computes."""
        return self.stem.weight.dtype

    def forward(self, low: Float[Tensor, "b 3 h w"], references: Sequence[Reference]) -> Float[Tensor, "b 3 H W"]:
        """Enlarged frames, around [-1, 1], float32.

        Args:
            low: frames in [-1, 1], sides even.
            references: the photograph and the earlier frame, in this order.
        """
        return self.compose(low, [self.warped(low, reference) for reference in references])

    def warped(self, low: Float[Tensor, "b 3 h w"], reference: Reference) -> Warped:
        """A reference as the frames' cameras see it, brought to lie on the frames."""
        coarse = reference.seen_coarse()
        return reference.seen(coarse, self._shift(low, coarse))

    def shift(self, low: Float[Tensor, "b 3 h w"], reference: Reference) -> Float[Tensor, "b 2 h w"] | None:
        """How far coordinates in a reference are to be moved, low-resolution pixels; None where nothing aligns."""
        return None if self.align is None else self._shift(low, reference.seen_coarse())

    def _shift(self, low: Tensor, coarse: Warped) -> Tensor | None:
        if self.align is None:
            return None
        return self.align(*(x.to(self.dtype) for x in (low, coarse.picture, coarse.cover)))

    def compose(self, low: Float[Tensor, "b 3 h w"], warped: Sequence[Warped]) -> Float[Tensor, "b 3 H W"]:
        """Enlarged frames from warped pictures."""
        pixel = low.float().repeat_interleave(BLOCK, dim=1)
        parts, details = [low.float()], []
        base = functional.pixel_unshuffle(enlarged(low.float()), FACTOR)
        for one in warped:
            picture = functional.pixel_unshuffle(one.picture.float(), FACTOR)
            parts += [(picture - pixel) * one.cover, one.cover, torch.log2(one.ratio.clamp(0.125, 8.0)) * one.cover]
            details.append((within_block(picture) - within_block(base)) * one.cover)
        out = self.trunk(torch.cat(parts, dim=1).to(self.dtype)).float()
        # shares of the frame's own smooth detail and of each picture's, one a pixel: they sum to one
        logits = out[:, 3 * BLOCK :].unflatten(1, (SOURCES, BLOCK))
        shares = torch.softmax(torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1), dim=1)[:, 1:]
        total = base + out[:, : 3 * BLOCK]
        for index, detail in enumerate(details):
            total = total + (detail.unflatten(1, (3, BLOCK)) * shares[:, index : index + 1]).flatten(1, 2)
        return functional.pixel_shuffle(total, FACTOR)

    def trunk(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Residuals of the blocks' pixels, then the logits of the references' shares."""
        x = self.before(self.stem(x))
        y = self.middle(self.down(x))
        return self.head(functional.silu(self.after(x + functional.pixel_shuffle(self.up(y), 2))))


def enlarged(low: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 H W"]:
    """Bicubic enlargement, what every measure is compared with."""
    return functional.interpolate(low, scale_factor=float(FACTOR), mode="bicubic", align_corners=False)


def reduced(pictures: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 h w"]:
    """Means of 4x4 pixels."""
    return functional.avg_pool2d(pictures, FACTOR)


def enlarged_mask(mask: Bool[Tensor, "b h w"]) -> Bool[Tensor, "b H W"]:
    """A mask of low resolution for enlarged frames."""
    return mask.repeat_interleave(FACTOR, 1).repeat_interleave(FACTOR, 2)


def within_block(blocks: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Pixels of 4x4 blocks, as channels, less their block's mean colour."""
    colors = blocks.unflatten(1, (3, BLOCK))
    return (colors - colors.mean(2, keepdim=True)).flatten(1, 2)


def transfer_detail(low: Float[Tensor, "b 3 h w"], warped: Sequence[Warped]) -> Float[Tensor, "b 3 H W"]:
    """Bicubic enlargement and the high frequencies of the first picture that covers a pixel: nothing is learned.

    The plain reference that the network has to beat.
    """
    result = enlarged(low.float())
    free = torch.ones_like(warped[0].cover)
    for one in warped:
        chosen = (one.cover > 0).float() * free
        free = free - chosen
        mask = functional.interpolate(chosen, scale_factor=float(FACTOR), mode="nearest")
        result = result + mask * (one.picture.float() - enlarged(reduced(one.picture.float())))
    return result


def build_super_resolution(config: SuperResolutionConfig = SuperResolutionConfig(), seed: int = 0) -> SuperResolution:
    """A network with the first weights of a training run, float32."""
    with torch.random.fork_rng(devices=[]):
        # layers draw from the global generator, which is put back afterwards
        torch.random.default_generator.manual_seed(seed)
        return SuperResolution(config)
