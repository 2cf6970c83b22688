"""Clips with exact geometry: what samples are made of and what generated videos are measured against.

Legend: b clips, t frames, h w pixels, s bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from jaxtyping import Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Rendered clips with exact geometry, on the device.

    Attributes:
        frames: sRGB in [-1, 1]. [b t 3 h w]
        depth_m: 0 where unknown; the sky as the rollout's depth choices have it. [b t h w]
        world_to_cam: rigid, metres. [b t 4 4]
        intrinsics: pixels. [b t 3 3]
        captions: bytes. [b s]
    """

    frames: Float[Tensor, "b t 3 h w"]
    depth_m: Float[Tensor, "b t h w"]
    world_to_cam: Float[Tensor, "b t 4 4"]
    intrinsics: Float[Tensor, "b t 3 3"]
    captions: UInt8[Tensor, "b s"]

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    def __getitem__(self, which: Tensor | slice) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in fields(self)})
