"""Rotary positions of packed tokens in time, rows and columns.

Rotary embedding: Su et al. 2021, "RoFormer", section 3.2, in the three-axis form of Wan 2.1 (its
technical report, section 4.2). The reference implementation average-pools the table of angles over
each packed group; angles are linear in the position, so here the positions are pooled instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.video.dit.exchange import Spread
from lyra_core.video.dit.layout import HistoryLayout

ROPE_BASE = 10000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One rotation per token and pair of channels, shared by all heads.

    Attributes:
        cos: cosines of the angles. [l 1 pairs] float32
        sin: sines of the angles. [l 1 pairs] float32
        spread: where the tokens are, if these are only those of one process among several.
    """

    cos: Float[Tensor, "l 1 pairs"]
    sin: Float[Tensor, "l 1 pairs"]
    spread: Spread | None = None

    def last(self, count: int) -> Rotation:
        """Those of the last tokens."""
        return Rotation(cos=self.cos[-count:], sin=self.sin[-count:], spread=self.spread)

    @classmethod
    def from_angles(cls, angles: Float[Tensor, "l pairs"]) -> Rotation:
        """Cosines and sines of angles in radians."""
        return cls(cos=angles.cos()[:, None], sin=angles.sin()[:, None])


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels that rotate with time, row and column."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def packed_positions(start: int, count: int, pooling: int, device: torch.device) -> Float[Tensor, " n"]:
    """Mean of each group of `pooling` integers from `start`; the last repeats to fill a group."""
    groups = -(-count // pooling)
    positions = torch.arange(groups * pooling, device=device).clamp(max=count - 1) + start
    return positions.float().reshape(groups, pooling).mean(1)


def packed_angles(
    layout: HistoryLayout,
    rows: int,
    columns: int,
    head_dim: int,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "l pairs"]:
    """Angles in radians of every token, in sequence order.

    Time positions are slot indices (not video times); rows and columns count base tokens.

    Args:
        layout: the slots.
        rows: base tokens per column of one latent frame.
        columns: base tokens per row of it.
        head_dim: channels of one attention head.
        device: where to build them.
    """
    device = torch.device(device)
    frequencies = [
        ROPE_BASE ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float64) / dim) for dim in axis_dims(head_dim)
    ]
    sequence = []
    for segment, slots in zip(layout.all_segments, layout.slot_ranges, strict=True):
        starts, counts = (slots.start, 0, 0), (len(slots), rows, columns)
        positions = [
            packed_positions(*axis, device=device) for axis in zip(starts, counts, segment.pooling, strict=True)
        ]
        grid = torch.meshgrid(*positions, indexing="ij")
        angles = [axis.flatten()[:, None] * f.float() for axis, f in zip(grid, frequencies, strict=True)]
        sequence.append(torch.cat(angles, dim=1))
    return torch.cat(sequence)


def rotate(x: Float[Tensor, "b l heads dim"], rotation: Rotation) -> Float[Tensor, "b l heads dim"]:
    """Rotate adjacent pairs of channels, in fp32 so that rotation keeps lengths."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation.cos, rotation.sin
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)
