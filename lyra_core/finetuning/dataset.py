"""Windows of one's own clips as training samples are cut from them: resized, cropped, mirrored where they are short.

clips = OwnClips(Path("data"), size=(480, 832))
window = clips.window(0, num_frames=161, caption_frame=81)     # Clips, b = 1, on the CPU
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import FormatError
from lyra_core.finetuning.clip_folder import ClipInfo, list_clips, open_clip
from lyra_core.formats.clip import iterate_frames
from lyra_core.mini.encoders import caption_bytes
from lyra_core.procedural.clips import Clips
from lyra_core.values import CameraPath

CAPTION_BYTES = 2048
"""Longer captions are cut: 512 tokens of the text encoder are about as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How frames of one size become frames of another: scaled to cover it, then cropped around the centre.

    Attributes:
        height: rows of the result.
        width: columns.
        scaled_height: rows before cropping.
        scaled_width: columns before cropping.
    """

    height: int
    width: int
    scaled_height: int
    scaled_width: int

    @classmethod
    def cover(cls, source: tuple[int, int], size: tuple[int, int]) -> Framing:
        """Rows and columns of the source, and of the result."""
        scale = max(size[0] / source[0], size[1] / source[1])
        # rounded first: 480 / 720 * 720 must not become 481
        scaled = [max(want, math.ceil(round(have * scale, 6))) for have, want in zip(source, size, strict=True)]
        return cls(height=size[0], width=size[1], scaled_height=scaled[0], scaled_width=scaled[1])

    @property
    def top(self) -> int:
        """Rows cut off above."""
        return (self.scaled_height - self.height) // 2

    @property
    def left(self) -> int:
        """Columns cut off at the left."""
        return (self.scaled_width - self.width) // 2

    def frame(self, image: np.ndarray) -> UInt8[Tensor, "3 h w"]:
        """An image [h w 3] uint8, scaled with an antialiasing triangle filter and cropped."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        scaled = (self.scaled_height, self.scaled_width)
        if tuple(pixels.shape[1:]) != scaled:
            resized = functional.interpolate(pixels[None].float(), scaled, mode="bilinear", antialias=True)[0]
            pixels = resized.round().clamp(0, 255).to(torch.uint8)
        return pixels[:, self.top : self.top + self.height, self.left : self.left + self.width].contiguous()

    def depth(self, depth_m: np.ndarray) -> Float[Tensor, "h w"]:
        """Depth [h w], scaled bilinearly over its known pixels; unknown (0) where the nearest pixel is.

        The reference implementation scales depth bilinearly too; where all is known this is the same.
        """
        given = torch.from_numpy(depth_m)[None, None]
        scaled = (self.scaled_height, self.scaled_width)
        if tuple(given.shape[2:]) != scaled:
            known = (given > 0).float()
            total = functional.interpolate(given, scaled, mode="bilinear", align_corners=False)
            share = functional.interpolate(known, scaled, mode="bilinear", align_corners=False)
            nearest = functional.interpolate(known, scaled, mode="nearest-exact")
            given = torch.where(nearest > 0, total / share.clamp(min=1e-6), 0.0)
        return given[0, 0, self.top : self.top + self.height, self.left : self.left + self.width].contiguous()

    def cameras(self, cameras: CameraPath) -> CameraPath:
        """The cameras of the result: intrinsics scaled with the image, the principal point moved by the crop.

        Raises:
            CameraPathError: the crop cuts the principal point off.
        """
        scaled = cameras.resized(self.scaled_height, self.scaled_width)
        intrinsics = scaled.intrinsics.clone()
        intrinsics[:, 0, 2] -= self.left
        intrinsics[:, 1, 2] -= self.top
        return CameraPath(
            world_to_cam=scaled.world_to_cam,
            intrinsics=intrinsics,
            image_height=self.height,
            image_width=self.width,
            name=cameras.name,
        )


def mirrored(num_frames: int, available: int) -> list[int]:
    """Frames 0, 1, ... that turn back at either end: what makes a short clip as long as it should be."""
    period = max(1, 2 * (available - 1))
    return [min(i % period, period - i % period) if available > 1 else 0 for i in range(num_frames)]


class OwnClips:
    """The clips of a folder (clip_folder), each opened when it is first used."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        """List the folder.

        Args:
            folder: in the layout of clip_folder.
            size: rows and columns of frames.

        Raises:
            FormatError: no folder, no clips, or clips without some of their parts.
        """
        self.size = size
        self.files = list_clips(folder)
        self._opened: dict[int, ClipInfo] = {}

    def __len__(self) -> int:
        return len(self.files)

    def info(self, index: int) -> ClipInfo:
        """Everything of a clip but its pixels and depth; errors as open_clip."""
        if index not in self._opened:
            self._opened[index] = open_clip(self.files[index])
        return self._opened[index]

    def captions(self) -> list[str]:
        """All captions, each once, in order; opens every clip."""
        texts = (text for index in range(len(self)) for _, text in self.info(index).captions)
        return list(dict.fromkeys(texts))

    def window(
        self,
        index: int,
        num_frames: int,
        *,
        caption_frame: int = 0,
        depth_every: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> Clips:
        """The first frames of a clip, mirrored where it is shorter.

        Args:
            index: of the clip.
            num_frames: frames.
            caption_frame: frame whose caption holds.
            depth_every: depth is read of every first to so-many-th frame only; it is unknown (0) between them.
            dtype: of the frames: a thousand of 480x832 take 5 GB in float32.

        Returns:
            One clip on the CPU.

        Raises:
            FormatError: files that cannot be read, also as open_clip.
            DepthError: depth without any known pixel.
        """
        info = self.info(index)
        framing = Framing.cover((info.video.height, info.video.width), self.size)
        order = mirrored(num_frames, info.video.num_frames)
        frames = self._frames(info, framing, order, dtype)
        cameras = framing.cameras(info.cameras)[order]
        depth = torch.zeros(num_frames, *self.size)
        for frame in range(0, num_frames, depth_every):
            depth[frame] = framing.depth(info.depth.read(order[frame]))
        return Clips(
            frames=frames[None],
            depth_m=depth[None],
            world_to_cam=cameras.world_to_cam.float()[None],
            intrinsics=cameras.intrinsics.float()[None],
            captions=caption_bytes([info.caption(order[caption_frame])], CAPTION_BYTES),
        )

    @staticmethod
    def _frames(info: ClipInfo, framing: Framing, order: Sequence[int], dtype: torch.dtype) -> Float[Tensor, "t 3 h w"]:
        """Frames in [-1, 1]; converted one by one, so that they are never there twice in a larger dtype."""
        num_read = max(order) + 1
        frames = torch.empty(num_read, 3, framing.height, framing.width, dtype=dtype)
        count = 0
        for image in iterate_frames(info.files.video):
            frames[count] = framing.frame(image).float() / 127.5 - 1
            count += 1
            if count == num_read:
                return frames if list(order) == list(range(num_read)) else frames[list(order)]
        raise FormatError(
            f"{info.files.video} should have {info.video.num_frames} frames, but only {count} can be decoded; "
            "write it again"
        )
