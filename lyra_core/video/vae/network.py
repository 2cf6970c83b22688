"""The causal video autoencoder: pixels to latents and back, whole or as a stream.

    video -- frame 0 | windows of 4 -- encoder -- conv1 -- mean -- normalise --> latents
    latents -- denormalise -- conv2 -- decoder, latent 0 | one by one --> video

Legend: b batch, t frames or latents, h w rows and columns. A latent covers 8 x 8 pixels and 4
frames, except the first, which covers the first frame alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.errors import FrameError, RecipeError
from lyra_core.video.vae.layers import (
    CausalCache,
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    ResidualBlock,
    Upsample,
    has_kernels,
)
from lyra_core.video.vae.still import run_still, run_trailing


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Widths of the autoencoder and the statistics of its latents.

    Attributes:
        dim: channels of the first level.
        latent_channels: channels of a latent.
        multipliers: channels of each level in units of dim; each but the last halves the frame.
        num_res_blocks: residual blocks a level (one more in the decoder).
        temporal_downsample: for each level but the last, whether it also halves time.
        latent_mean: per channel, subtracted after encoding.
        latent_std: per channel, divided by after encoding.

    Raises:
        RecipeError: lists of unequal length.
    """

    dim: int
    latent_channels: int
    multipliers: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.multipliers) - 1:
            raise RecipeError(
                f"temporal_downsample needs one entry for each of the {len(self.multipliers) - 1} "
                f"level changes, found {len(self.temporal_downsample)}"
            )
        if {len(self.latent_mean), len(self.latent_std)} != {self.latent_channels}:
            raise RecipeError(
                f"latent_mean and latent_std need {self.latent_channels} values, "
                f"found {len(self.latent_mean)} and {len(self.latent_std)}"
            )

    @property
    def spatial_factor(self) -> int:
        """Pixels along one side of a latent pixel."""
        return 2 ** len(self.temporal_downsample)

    @property
    def temporal_factor(self) -> int:
        """Frames of every latent but the first."""
        return 2 ** sum(self.temporal_downsample)


# Statistics of Wan 2.1's latents, from its public configuration.
_WAN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_WAN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)

WAN21_VAE = VAEConfig(
    dim=96,
    latent_channels=16,
    multipliers=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    latent_mean=_WAN_MEAN,
    latent_std=_WAN_STD,
)

TINY_VAE = VAEConfig(
    dim=8,
    latent_channels=16,
    multipliers=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    latent_mean=_WAN_MEAN,
    latent_std=_WAN_STD,
)


def _middle(dim: int) -> nn.ModuleList:
    return nn.ModuleList([ResidualBlock(dim, dim), FrameAttention(dim), ResidualBlock(dim, dim)])


class Head(nn.Sequential):
    """Norm, SiLU and the last convolution."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__(ChannelNorm(dim, 3), nn.SiLU(), CausalConv3d(dim, out_dim, (3, 3, 3)))
        self.memory_frames = 2

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b c t h w"], cache: CausalCache
    ) -> Float[Tensor, "b d t h w"]:
        """Apply to a window."""
        norm, convolution = cast("ChannelNorm", self[0]), cast("CausalConv3d", self[2])
        if not has_kernels(x):
            return convolution(nn.functional.silu(norm(x)), cache)
        bias = cast("Tensor", convolution.bias)
        return convolution.convolve_activated(norm, x, None, cache) + bias[:, None, None, None]


class Encoder(nn.Module):
    """Pixels to features, level by level."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        multipliers: tuple[int, ...],
        num_res_blocks: int,
        temporal_downsample: tuple[bool, ...],
    ) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(3, dim, (3, 3, 3))
        self.downsamples = nn.ModuleList()
        width = dim
        for level, multiplier in enumerate(multipliers):
            for _ in range(num_res_blocks):
                self.downsamples.append(ResidualBlock(width, dim * multiplier))
                width = dim * multiplier
            if level < len(temporal_downsample):
                self.downsamples.append(Downsample(width, temporal=temporal_downsample[level]))
        self.middle = _middle(width)
        self.head = Head(width, out_dim)

    def forward(self, x: Float[Tensor, "b 3 t h w"], cache: CausalCache) -> Float[Tensor, "b c t2 h2 w2"]:
        """Encode one window."""
        cache.begin_window()
        for layer in self.layers:
            x = layer(x, cache)
        return x

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """In the order of calls."""
        return (self.conv1, *self.downsamples, *self.middle, self.head)


class Decoder(nn.Module):
    """Latents to pixels, level by level."""

    def __init__(
        self,
        dim: int,
        in_dim: int,
        multipliers: tuple[int, ...],
        num_res_blocks: int,
        temporal_upsample: tuple[bool, ...],
    ) -> None:
        super().__init__()
        width = dim * multipliers[0]
        self.conv1 = CausalConv3d(in_dim, width, (3, 3, 3))
        self.middle = _middle(width)
        self.upsamples = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            for _ in range(num_res_blocks + 1):
                self.upsamples.append(ResidualBlock(width, dim * multiplier))
                width = dim * multiplier
            if level < len(temporal_upsample):
                self.upsamples.append(Upsample(width, temporal=temporal_upsample[level]))
                width //= 2
        self.head = Head(width, 3)

    def forward(self, x: Float[Tensor, "b c t h w"], cache: CausalCache) -> Float[Tensor, "b 3 t2 h2 w2"]:
        """Decode one window."""
        cache.begin_window()
        for layer in self.layers:
            x = layer(x, cache)
        return x

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """In the order of calls."""
        return (self.conv1, *self.middle, *self.upsamples, self.head)


class VAE(nn.Module):
    """The autoencoder; it uses the mean of its latent distribution: encoding is deterministic."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.is_channels_last = False
        channels, levels = config.latent_channels, config.multipliers
        self.encoder = Encoder(config.dim, 2 * channels, levels, config.num_res_blocks, config.temporal_downsample)
        self.conv1 = nn.Conv3d(2 * channels, 2 * channels, 1)
        self.conv2 = nn.Conv3d(channels, channels, 1)
        self.decoder = Decoder(
            config.dim,
            channels,
            levels[::-1],
            config.num_res_blocks,
            config.temporal_downsample[::-1],
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which everything is computed."""
        return self.conv2.weight.dtype

    def put_channels_last(self) -> None:
        """Lay weights out as Hopper's convolutions want them, and what is computed with them: same numbers, faster."""
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                weight = module.weight
                weight.data = weight.data.contiguous(memory_format=formats[weight.ndim])
        self.is_channels_last = True

    def encode(
        self,
        video: Float[Tensor, "b 3 t h w"],
        cache: CausalCache | None = None,
        *,
        latents_per_window: int = 1,
    ) -> Float[Tensor, "b c t2 h2 w2"]:
        """Encode a video, or its continuation.

        Args:
            video: sRGB in [-1, 1]; 1 + 4n frames, or 4n where the cache has seen some. [b 3 t h w]
            cache: remembers the frames for a later call; without it the video stands alone.
            latents_per_window: more needs more memory and gives the same numbers, faster on a GPU.

        Returns:
            Normalised latents, in the dtype of the weights. [b 16 1+n h/8 w/8]

        Raises:
            FrameError: another number of frames, or sides that are no multiple of 8.
        """
        cache = CausalCache() if cache is None else cache
        self._require_frames(video, cache)
        windows = self._windows(video.to(self.dtype), cache, latents_per_window, encode=True)
        return self._normalised(torch.cat([self.encoder(window, cache) for window in windows], dim=2))

    def encode_still(
        self, image: Float[Tensor, "b 3 h w"], num_latents: int, cache: CausalCache
    ) -> Float[Tensor, "b c n rows columns"]:
        """`encode` of one image repeated, 1 + 4n frames, without computing again what stays the same.

        Args:
            image: sRGB in [-1, 1].
            num_latents: 1 + n.
            cache: fresh; afterwards as if all frames had been encoded.
        """
        self._require_frames(image[:, :, None], cache)
        step = self.config.temporal_factor
        frames = image.to(self.dtype)[:, :, None].expand(-1, -1, 1 + step, -1, -1)
        first, *others = self._windows(frames, cache, 1, encode=True)
        windows = [first, *(others[:1] * (num_latents - 1))]
        return self._normalised(torch.cat(run_still(self.encoder.layers, windows, cache), dim=2))

    def remember(self, latents: Float[Tensor, "b c t h w"], cache: CausalCache) -> None:
        """Bring a fresh cache to where `decode` of the latents leaves it, without the frames that leave no trace."""
        windows = self._windows(self._denormalised(latents), cache, 1, encode=False)
        run_trailing(self.decoder.layers, list(windows), cache)

    def _normalised(self, features: Tensor) -> Tensor:
        mean = self.conv1(features).chunk(2, dim=1)[0]
        offset, scale = self._statistics(mean.device)
        return (mean - offset) / scale

    def decode(
        self,
        latents: Float[Tensor, "b c t h w"],
        cache: CausalCache | None = None,
        *,
        latents_per_window: int = 1,
    ) -> Float[Tensor, "b 3 t2 h2 w2"]:
        """Decode latents, or their continuation.

        Args:
            latents: normalised. [b 16 t h w]
            cache: remembers the latents for a later call; without it they stand alone.
            latents_per_window: more needs more memory and gives the same numbers, faster on a GPU.

        Returns:
            sRGB around [-1, 1], not clamped: 4 frames a latent, 1 for the first. [b 3 t2 8h 8w]
        """
        cache = CausalCache() if cache is None else cache
        windows = self._windows(self._denormalised(latents), cache, latents_per_window, encode=False)
        return torch.cat([self.decoder(window, cache) for window in windows], dim=2)

    def _denormalised(self, latents: Tensor) -> Tensor:
        offset, scale = self._statistics(latents.device)
        return self.conv2(latents.to(self.dtype) * scale + offset)

    def _windows(self, x: Tensor, cache: CausalCache, latents: int, *, encode: bool) -> tuple[Tensor, ...]:
        """The first frame or latent alone where nothing came before, then equal windows."""
        size = latents * (self.config.temporal_factor if encode else 1)
        if self.is_channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        head = (x[:, :, :1],) if cache.is_fresh else ()
        rest = x[:, :, len(head) :]
        return (*head, *(rest.split(size, dim=2) if rest.shape[2] else ()))

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        def as_tensor(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=self.dtype, device=device)[:, None, None, None]

        return as_tensor(self.config.latent_mean), as_tensor(self.config.latent_std)

    def _require_frames(self, video: Tensor, cache: CausalCache) -> None:
        frames, height, width = video.shape[2:]
        step, side = self.config.temporal_factor, self.config.spatial_factor
        first = 1 if cache.is_fresh else 0
        if frames < 1 or (frames - first) % step:
            wanted = f"1 + {step}n frames" if first else f"{step}n frames after the first window"
            raise FrameError(f"the autoencoder encodes {wanted}, found {frames}")
        if height % side or width % side:
            raise FrameError(f"the autoencoder needs sides that are multiples of {side}, found {width}x{height}")


def build_vae(config: VAEConfig, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> VAE:
    """Build the autoencoder on a device, with torch's default initial weights.

    Args:
        config: the widths.
        device: "meta" for shapes only (then load with `load_state_dict(..., assign=True)`).
        dtype: of the parameters.
    """
    with torch.device(device):
        return VAE(config).to(dtype)
