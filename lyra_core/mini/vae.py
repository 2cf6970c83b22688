"""The small video autoencoder of the mini model: the interface of `vae`, patches first, 2D convolutions only.

    4 frames -- 4x4 unshuffle, 192 channels -- residual blocks -- stride 2 -- residual blocks --> mean | variance
    latent and the one before -- residual blocks -- pixel shuffle -- residual blocks -- 4x4 shuffle --> 4 frames

The encoder looks at one group of 4 frames; the decoder also sees the previous latent, so that groups join without a
seam. The first frame is encoded as a group of four equal frames. Convolutions run at a quarter of the resolution at
most: on two CPU cores a chunk of 80 frames decodes in a fraction of a second, which 3D convolutions at full
resolution would not.

Legend: b batch, t frames or latents, g groups of frames, c channels, h w rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lyra_core.errors import FrameError
from lyra_core.video.vae.layers import CausalCache, ChannelNorm

PATCH = 4
GROUP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniVAEConfig:
    """Widths of the small autoencoder.

    Attributes:
        latent_channels: channels of a latent.
        encoder_dims: channels at 1/4 and 1/8 of the resolution.
        encoder_blocks: residual blocks there.
        decoder_dims: channels at 1/8 and 1/4 of the resolution.
        decoder_blocks: residual blocks there.
    """

    latent_channels: int = 16
    encoder_dims: tuple[int, int] = (96, 128)
    encoder_blocks: tuple[int, int] = (2, 2)
    decoder_dims: tuple[int, int] = (144, 112)
    decoder_blocks: tuple[int, int] = (3, 5)

    @property
    def spatial_factor(self) -> int:
        """Pixels along one side of a latent pixel."""
        return 2 * PATCH

    @property
    def temporal_factor(self) -> int:
        """Frames of every latent but the first."""
        return GROUP


MINI_VAE = MiniVAEConfig()
TINY_MINI_VAE = MiniVAEConfig(
    encoder_dims=(24, 32), encoder_blocks=(1, 1), decoder_dims=(32, 24), decoder_blocks=(1, 1)
)


class ResidualBlock2d(nn.Module):
    """Norm, SiLU and convolution, twice, added to the input; starts as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, 2)
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm2 = ChannelNorm(dim, 2)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add what the block computes."""
        y = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(y)))


def _blocks(dim: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock2d(dim) for _ in range(count)))


class GroupEncoder(nn.Module):
    """Groups of frames to the mean and log variance of their latents."""

    def __init__(self, channels: int, dims: tuple[int, int], blocks: tuple[int, int]) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3 * GROUP * PATCH * PATCH, dims[0], 3, padding=1)
        self.quarter = _blocks(dims[0], blocks[0])
        self.down = nn.Conv2d(dims[0], dims[1], 3, stride=2, padding=1)
        self.eighth = _blocks(dims[1], blocks[1])
        self.norm = ChannelNorm(dims[1], 2)
        self.head = nn.Conv2d(dims[1], 2 * channels, 3, padding=1)

    def forward(self, groups: Float[Tensor, "n 12 h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Encode groups, each of 4 frames of 3 channels."""
        x = self.quarter(self.patch(functional.pixel_unshuffle(groups, PATCH)))
        x = self.eighth(self.down(x))
        return self.head(functional.silu(self.norm(x)))


class GroupDecoder(nn.Module):
    """Latents, each beside the previous one, to groups of frames."""

    def __init__(self, channels: int, dims: tuple[int, int], blocks: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2 * channels, dims[0], 3, padding=1)
        self.eighth = _blocks(dims[0], blocks[0])
        self.up = nn.Conv2d(dims[0], 4 * dims[1], 1)
        self.quarter = _blocks(dims[1], blocks[1])
        self.norm = ChannelNorm(dims[1], 2)
        self.head = nn.Conv2d(dims[1], 3 * GROUP * PATCH * PATCH, 3, padding=1)

    def forward(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 12 h2 w2"]:
        """Decode latents to groups of 4 frames of 3 channels."""
        x = self.eighth(self.stem(latents))
        x = self.quarter(functional.pixel_shuffle(self.up(x), 2))
        return functional.pixel_shuffle(self.head(functional.silu(self.norm(x))), PATCH)


class MiniVAE(nn.Module):
    """The small autoencoder; encoding takes the mean of the latent distribution: it is deterministic."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: MiniVAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = GroupEncoder(channels, config.encoder_dims, config.encoder_blocks)
        self.decoder = GroupDecoder(channels, config.decoder_dims, config.decoder_blocks)
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which everything is computed."""
        return self.encoder.patch.weight.dtype

    def posterior(
        self, video: Float[Tensor, "b 3 t h w"], *, is_continued: bool = False
    ) -> tuple[Float[Tensor, "b c g h2 w2"], Float[Tensor, "b c g h2 w2"]]:
        """Mean and log variance of latents before normalisation: what training sees.

        Args:
            video: sRGB in [-1, 1]; 1 + 4n frames, or 4n where `is_continued`.
            is_continued: the first frame is not the first of its video.
        """
        if not is_continued:
            still = video[:, :, :1].expand(-1, -1, GROUP - 1, -1, -1)
            video = torch.cat([still, video], dim=2)
        batch = video.shape[0]
        groups = rearrange(video, "b c (g t) h w -> (b g) (t c) h w", t=GROUP)
        both = rearrange(self.encoder(groups), "(b g) c h w -> b c g h w", b=batch)
        mean, log_variance = both.chunk(2, dim=1)
        return mean, log_variance.clamp(-20.0, 10.0)

    def reconstruct(
        self, latents: Float[Tensor, "b c g h w"], previous: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b 3 t h2 w2"]:
        """Frames of latents before normalisation.

        Args:
            latents: of consecutive groups.
            previous: the latent before them; None where the first latent is the first of its video.
        """
        batch = latents.shape[0]
        before = torch.zeros_like(latents[:, :, 0]) if previous is None else previous
        shifted = torch.cat([before[:, :, None], latents[:, :, :-1]], dim=2)
        pairs = rearrange(torch.cat([latents, shifted], dim=1), "b c g h w -> (b g) c h w")
        frames = rearrange(self.decoder(pairs), "(b g) (t c) h w -> b c (g t) h w", b=batch, t=GROUP)
        return frames[:, :, GROUP - 1 :] if previous is None else frames

    def encode(
        self,
        video: Float[Tensor, "b 3 t h w"],
        cache: CausalCache | None = None,
        *,
        latents_per_window: int = 8,
    ) -> Float[Tensor, "b c t2 h2 w2"]:
        """Encode a video, or its continuation.

        Args:
            video: sRGB in [-1, 1]; 1 + 4n frames, or 4n where the cache has seen some. [b 3 t h w]
            cache: remembers that frames came before; without it the video stands alone.
            latents_per_window: more needs more memory and gives the same numbers.

        Returns:
            Normalised latents, in the dtype of the weights. [b 16 1+n h/8 w/8]

        Raises:
            FrameError: another number of frames, or sides that are no multiple of 8.
        """
        cache = CausalCache() if cache is None else cache
        self._require_frames(video, is_first=cache.is_fresh)
        x = video.to(self.dtype)
        head = (x[:, :, :1],) if cache.is_fresh else ()
        rest = x[:, :, len(head) :]
        means = [self.posterior(first)[0] for first in head]
        if rest.shape[2]:
            windows = rest.split(GROUP * latents_per_window, dim=2)
            means += [self.posterior(window, is_continued=True)[0] for window in windows]
        cache.begin_window()
        cache.write(x[:, :, -1:, :1, :1])  # any entry: groups need no past, only to know that there was one
        return (torch.cat(means, dim=2) - self._column(self.latent_mean)) / self._column(self.latent_std)

    def decode(
        self,
        latents: Float[Tensor, "b c t h w"],
        cache: CausalCache | None = None,
        *,
        latents_per_window: int = 8,
    ) -> Float[Tensor, "b 3 t2 h2 w2"]:
        """Decode latents, or their continuation.

        Args:
            latents: normalised. [b 16 t h w]
            cache: remembers the last latent for a later call; without it they stand alone.
            latents_per_window: more needs more memory and gives the same numbers.

        Returns:
            sRGB around [-1, 1], not clamped: 4 frames a latent, 1 for the first. [b 3 t2 8h 8w]
        """
        cache = CausalCache() if cache is None else cache
        x = latents.to(self.dtype) * self._column(self.latent_std) + self._column(self.latent_mean)
        cache.begin_window()
        previous = cache.read()
        frames = []
        for window in x.split(latents_per_window, dim=2):
            frames.append(self.reconstruct(window, None if previous is None else previous[:, :, 0]))
            previous = window[:, :, -1:]
        if previous is not None:
            cache.write(previous)
        return torch.cat(frames, dim=2)

    def _column(self, statistics: Tensor) -> Tensor:
        return statistics.to(self.dtype)[:, None, None, None]

    def _require_frames(self, video: Tensor, *, is_first: bool) -> None:
        frames, height, width = video.shape[2:]
        side = self.config.spatial_factor
        if frames < 1 or (frames - is_first) % GROUP:
            wanted = f"1 + {GROUP}n frames" if is_first else f"{GROUP}n frames after the first window"
            raise FrameError(f"the autoencoder encodes {wanted}, found {frames}")
        if height % side or width % side:
            raise FrameError(f"the autoencoder needs sides that are multiples of {side}, found {width}x{height}")


def build_mini_vae(
    config: MiniVAEConfig = MINI_VAE,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MiniVAE:
    """Build the small autoencoder on a device, with torch's default initial weights.

    Args:
        config: the widths.
        device: "meta" for shapes only (then load with `load_state_dict(..., assign=True)`).
        dtype: of the parameters.
    """
    with torch.device(device):
        return MiniVAE(config).to(dtype)
