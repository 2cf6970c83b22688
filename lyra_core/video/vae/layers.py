"""Layers of the video autoencoder: convolutions that look only into the past, and their memory.

A video is processed in windows. Each layer that looks back keeps its last frames in a
`CausalCache`, so that windows one after the other give what the whole video at once would. Layer
design: Wan 2.1 (its technical report, section 4.1). Parameters carry the names of the released
checkpoint.
"""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

MATRIX_CHANNELS = 32
"""Input channels come in multiples of this, for the quick convolutions."""
FEW_CHANNELS = 128
"""Convolutions to fewer channels run twice as fast in two dimensions, with the frames they read side by side."""


class CausalCache:
    """What the layers of an encoder or decoder remember of earlier windows, in the order of calls.

    Entries are replaced, never written into: copies are cheap and independent.
    """

    def __init__(self) -> None:
        self._entries: list[Tensor] = []
        self._cursor = 0

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was processed yet."""
        return not self._entries

    def begin_window(self) -> None:
        """Return to the first layer."""
        self._cursor = 0

    def read(self) -> Tensor | None:
        """The current layer's entry, None in the first window."""
        return self._entries[self._cursor] if self._cursor < len(self._entries) else None

    def write(self, frames: Tensor) -> None:
        """Replace the current layer's entry and go on to the next layer."""
        kept = frames.clone()  # a view would keep the whole window alive
        if self._cursor < len(self._entries):
            self._entries[self._cursor] = kept
        else:
            self._entries.append(kept)
        self._cursor += 1

    @property
    def position(self) -> int:
        """Entries that come before the current layer's."""
        return self._cursor

    def skip_to(self, position: int) -> None:
        """Go on behind layers whose entries stay as they are."""
        self._cursor = position

    def entries(self, start: int, stop: int) -> list[Tensor]:
        """Entries of some layers, as far as they exist."""
        return self._entries[start:stop]

    def copy(self) -> CausalCache:
        """An independent cache of the same state."""
        twin = CausalCache()
        twin._entries = list(self._entries)
        return twin

    def to(self, device: torch.device | str) -> CausalCache:
        """The same state on another device."""
        twin = CausalCache()
        twin._entries = [entry.to(device) for entry in self._entries]
        return twin


class CausalConv3d(nn.Conv3d):
    """A 3D convolution padded with zeros around each frame and, in time, with the past only."""

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(in_dim, out_dim, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.reach = kernel[0] - 1
        self.memory_frames = self.reach

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b c t h w"], cache: CausalCache
    ) -> Float[Tensor, "b d t h w"]:
        """Convolve a window, after the frames remembered from the one before."""
        past = cache.read()
        return self.convolve(x[:, :, :0] if past is None else past, x, cache)

    def convolve(self, past: Tensor, x: Tensor, cache: CausalCache) -> Float[Tensor, "b d t h w"]:
        """Convolve after given past frames (fewer than the reach are completed with zeros)."""
        frames = torch.cat((past, x), dim=2)
        cache.write(frames[:, :, -self.reach :])
        missing = self.reach - past.shape[2]
        frames = nn.functional.pad(frames, (0, 0, 0, 0, missing, 0))
        if self.in_channels % 8 == 0 or not has_kernels(x):
            return super().forward(frames)
        count = x.shape[2]
        taps = torch.cat([frames[:, :, tap : tap + count] for tap in range(self.reach + 1)], dim=1)
        return self._convolve_taps(taps, self.bias)

    def _convolve_taps(self, taps: Float[Tensor, "b taps_c t h w"], bias: Tensor | None) -> Float[Tensor, "b d t h w"]:
        """The convolution where the frames that each frame reads lie side by side in channels, the oldest first."""
        weight = rearrange(self.weight, "d c t h w -> d (t c) h w")
        flat = rearrange(taps, "b c t h w -> (b t) c h w")
        missing = -weight.shape[1] % MATRIX_CHANNELS  # nine channels of colours are completed with zeros
        if missing:
            weight, flat = (nn.functional.pad(t, (0, 0, 0, 0, 0, missing)) for t in (weight, flat))
        last = torch.channels_last
        weight, flat = weight.contiguous(memory_format=last), flat.contiguous(memory_format=last)
        mixed = nn.functional.conv2d(flat, weight, bias, padding=self.padding[1:])
        return rearrange(mixed, "(b t) c h w -> b c t h w", b=taps.shape[0])

    def convolve_activated(
        self, norm: ChannelNorm, x: Tensor, bias: Tensor | None, cache: CausalCache
    ) -> Float[Tensor, "b d t h w"]:
        """Convolve SiLU of the normalised x (+ bias) without adding the own bias, by GPU kernels."""
        from lyra_core.video.vae.kernels import activate, activate_taps

        past = cache.read()
        past = x[:, :, :0] if past is None else past
        if self.out_channels >= FEW_CHANNELS:
            frames = activate(x, bias, norm.gamma, past, self.reach)
            cache.write(frames[:, :, -self.reach :])
            return nn.functional.conv3d(frames, self.weight, padding=self.padding)
        taps = activate_taps(x, bias, norm.gamma, past, self.reach)
        newest = taps[:, x.shape[1] :, -1:]  # what the last frame reads besides the oldest
        cache.write(torch.cat(newest.chunk(self.reach, dim=1), dim=2))
        return self._convolve_taps(taps, None)


def has_kernels(x: Tensor) -> bool:
    """Whether a tensor lies where and as the GPU kernels want it."""
    return x.is_cuda and x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last_3d)


def alike(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An empty tensor of another shape in the memory format of a video tensor."""
    is_last = x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
    format_ = torch.channels_last_3d if is_last else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=format_)


class ChannelNorm(nn.Module):
    """RMS norm over channels at each pixel; `ndim` counts the axes after the channels."""

    def __init__(self, dim: int, ndim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *(1,) * ndim))

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Normalise."""
        return nn.functional.normalize(x, dim=1) * self.gamma.shape[0] ** 0.5 * self.gamma


class ResidualBlock(nn.Module):
    """Norm, SiLU and causal convolution, twice, added to the input."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(in_dim, 3),
                "2": CausalConv3d(in_dim, out_dim, (3, 3, 3)),
                "3": ChannelNorm(out_dim, 3),
                "6": CausalConv3d(out_dim, out_dim, (3, 3, 3)),
            }
        )
        self.shortcut = nn.Conv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()
        self.memory_frames = 4

    def forward(self, x: Float[Tensor, "b c t h w"], cache: CausalCache) -> Float[Tensor, "b d t h w"]:
        """Apply the block to a window."""
        layers = self.residual
        if has_kernels(x):
            return self._in_few_passes(x, cache)
        y = layers["2"](nn.functional.silu(layers["0"](x)), cache)
        y = layers["6"](nn.functional.silu(layers["3"](y)), cache)
        return self.shortcut(x) + y

    def _in_few_passes(self, x: Tensor, cache: CausalCache) -> Tensor:
        """The same with biases, norms, SiLU and what is remembered joined into one kernel between convolutions."""
        from lyra_core.video.vae.kernels import add

        norms = [cast("ChannelNorm", self.residual[name]) for name in ("0", "3")]
        first, second = (cast("CausalConv3d", self.residual[name]) for name in ("2", "6"))
        y = first.convolve_activated(norms[0], x, None, cache)
        y = second.convolve_activated(norms[1], y, first.bias, cache)
        bias = cast("Tensor", second.bias)
        if isinstance(self.shortcut, nn.Identity):
            return add(y, x, bias, None)
        return add(y, nn.functional.conv3d(x, self.shortcut.weight), bias, self.shortcut.bias)


class FrameAttention(nn.Module):
    """Single-head attention among the pixels of each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, 2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.memory_frames = 0

    def forward(self, x: Float[Tensor, "b c t h w"], cache: CausalCache) -> Float[Tensor, "b c t h w"]:
        """Attend; frames are independent, so nothing is remembered."""
        del cache
        b, _, _, h, w = x.shape
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        query, key, value = rearrange(self.to_qkv(self.norm(frames)), "n (three c) h w -> three n 1 (h w) c", three=3)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        mixed = self.proj(rearrange(mixed, "n 1 (h w) c -> n c h w", h=h, w=w))
        return x + rearrange(mixed, "(b t) c h w -> b c t h w", b=b)


class Downsample(nn.Module):
    """Halve rows and columns, and time where asked."""

    def __init__(self, dim: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=(2, 2)))
        self.time_conv = nn.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Float[Tensor, "b c t h w"], cache: CausalCache) -> Float[Tensor, "b c t2 h2 w2"]:
        """Downsample; the very first frame of a video stays one frame."""
        batch = x.shape[0]
        frames = self.resample(rearrange(x, "b c t h w -> (b t) c h w"))
        x = rearrange(frames, "(b t) c h w -> b c t h w", b=batch)
        if self.time_conv is None:
            return x
        past = cache.read()
        cache.write(x[:, :, -1:])
        return x if past is None else self.time_conv(torch.cat((past, x), dim=2))


class Upsample(nn.Module):
    """Double rows and columns (halving channels), and before that time where asked."""

    def __init__(self, dim: int, *, temporal: bool) -> None:
        super().__init__()
        # Nearest neighbours are copies, so unlike the reference no fp32 round trip is needed.
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact"),
            nn.Conv2d(dim, dim // 2, 3, padding=1),
        )
        self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1)) if temporal else None
        self.memory_frames = 2 if temporal else 0

    def begin_late(self, x: Float[Tensor, "b c t h w"], cache: CausalCache) -> None:
        """Take the window to come for one of the middle of a video whose beginning was left out."""
        if self.time_conv is not None:
            position = cache.position
            cache.write(x[:, :, :0])
            cache.skip_to(position)

    def forward(self, x: Float[Tensor, "b c t h w"], cache: CausalCache) -> Float[Tensor, "b c2 t2 h2 w2"]:
        """Upsample; the very first latent of a video stays one frame."""
        if self.time_conv is not None:
            past = cache.read()
            if past is None:
                cache.write(x[:, :, :0])  # seen, but no later frame looks back at it
            else:
                doubled = self.time_conv.convolve(past, x, cache)
                b, wide, t, h, w = doubled.shape
                x = alike(doubled, (b, wide // 2, 2 * t, h, w))
                x[:, :, 0::2], x[:, :, 1::2] = doubled.chunk(2, dim=1)
        batch = x.shape[0]
        frames = self._enlarge(rearrange(x, "b c t h w -> (b t) c h w"), has_kernels(x))
        return rearrange(frames, "(b t) c h w -> b c t h w", b=batch)

    def _enlarge(self, frames: Tensor, by_kernel: bool) -> Tensor:
        if not by_kernel:
            return self.resample(frames)
        from lyra_core.video.vae.kernels import double

        enlarged: Tensor = self.resample[1](double(frames))
        return enlarged
