"""Turns latent frames, camera rays and correspondence maps into packed token sequences, segment by
segment.

Every sequence has the order of the slots; inside a segment tokens are in raster order (frame, row,
column).
Legend: b batch, c channels, t slots, h w latent rows and columns, l tokens.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lyra_core.video.dit.layout import HistoryLayout

INVALID_CORRESPONDENCE = -1.0


def pad_to_multiple(x: Float[Tensor, "b c t h w"], multiple: tuple[int, int, int]) -> Float[Tensor, "b c t2 h2 w2"]:
    """Repeat the last frame, row and column until each axis is a multiple."""
    missing = [-size % m for size, m in zip(x.shape[2:], multiple, strict=True)]
    if not any(missing):
        return x
    t, h, w = missing
    return nn.functional.pad(x, (0, w, 0, h, 0, t), mode="replicate")


def patchify(x: Float[Tensor, "b c t h w"], patch: tuple[int, int, int]) -> Float[Tensor, "b l features"]:
    """Cut into patches; features in the order (channel, frame, row, column)."""
    pt, ph, pw = patch
    return rearrange(
        pad_to_multiple(x, patch),
        "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)",
        pt=pt,
        ph=ph,
        pw=pw,
    )


def unpatchify(
    tokens: Float[Tensor, "b l features"], frames: int, rows: int, columns: int, patch: int
) -> Float[Tensor, "b c t h w"]:
    """Undo `patchify` for network outputs, whose features are ordered (row, column, channel)."""
    return rearrange(
        tokens,
        "b (t h w) (ph pw c) -> b c t (h ph) (w pw)",
        t=frames,
        h=rows,
        w=columns,
        ph=patch,
        pw=patch,
    )


def average_pool(x: Float[Tensor, "b c t h w"], kernel: tuple[int, int, int]) -> Float[Tensor, "b c t2 h2 w2"]:
    """Means over blocks, after padding; in fp32, as bf16 sums of 64 values lose digits."""
    if kernel == (1, 1, 1):
        return x
    return nn.functional.avg_pool3d(pad_to_multiple(x, kernel).float(), kernel, kernel).to(x.dtype)


def camera_tokens(rays: Float[Tensor, "b c t h w"], layout: HistoryLayout, patch: int) -> Float[Tensor, "b l features"]:
    """Ray maps on the token grid (features in the order channel, row, column), pooled like the
    positions.

    Args:
        rays: per latent pixel, all slots. [b c t h w]
        layout: the slots.
        patch: latent pixels per base token, both axes.
    """
    on_grid = rearrange(
        pad_to_multiple(rays, (1, patch, patch)),
        "b c t (h ph) (w pw) -> b (c ph pw) t h w",
        ph=patch,
        pw=patch,
    )
    segments = [
        average_pool(on_grid[:, :, slots.start : slots.stop], segment.pooling)
        for segment, slots in zip(layout.all_segments, layout.slot_ranges, strict=True)
    ]
    return torch.cat([rearrange(s, "b c t h w -> b (t h w) c") for s in segments], dim=1)


def correspondence_tokens(
    maps: Float[Tensor, "b c t h w"], layout: HistoryLayout, patch: int
) -> tuple[Float[Tensor, "b l features"], Float[Tensor, "l 1"]]:
    """Correspondence maps as tokens, and which tokens have one.

    Retrieved frames are pooled on the latent grid before the patches are cut; temporal history has
    no
    correspondence: its tokens hold -1 and its validity is 0.

    Args:
        maps: per latent pixel, all slots (temporal history slots are ignored). [b c t h w]
        layout: the slots.
        patch: latent pixels per base token, both axes.
    """
    b, channels, _, h, w = maps.shape
    rows, columns = -(-h // patch), -(-w // patch)
    tokens, validity = [], []
    pairs = list(zip(layout.all_segments, layout.slot_ranges, strict=True))
    for index, (segment, slots) in enumerate(pairs):
        if segment.kind == "temporal" and index < len(layout.segments):
            t, r, c = segment.token_grid(rows, columns)
            part = maps.new_full((b, t * r * c, channels * patch**2), INVALID_CORRESPONDENCE)
            valid = 0.0
        else:
            pooled = average_pool(maps[:, :, slots.start : slots.stop], segment.pooling)
            part = patchify(pooled, (1, patch, patch))
            valid = 1.0
        tokens.append(part)
        validity.append(maps.new_full((part.shape[1], 1), valid))
    return torch.cat(tokens, dim=1), torch.cat(validity)


def sinusoidal_features(x: Float[Tensor, "*batch features"], frequencies: int) -> Float[Tensor, "*batch wide"]:
    """[sin(pi x), cos(pi x), sin(2 pi x), cos(2 pi x), ...] on the last axis.

    Computed in fp32 (bf16 phases near pi are off by 0.01) and returned in the dtype of x.
    """
    waves = []
    for octave in range(frequencies):
        phase = x.float() * (torch.pi * 2**octave)
        waves += [torch.sin(phase).to(x.dtype), torch.cos(phase).to(x.dtype)]
    return torch.cat(waves, dim=-1)
