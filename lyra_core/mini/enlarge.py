"""Enlarges a generated video four times, from key frame to key frame, guided by the photograph it began with.

    photograph ------------- carried by its depth ----------+
    key frame, enlarged ---- carried by its depth --------+ |
                                                          v v
    frames after it, up to the next key frame --- super-resolution ---> enlarged frames; the last is the next key frame

Key frames are those whose depth the memory knows (every eighth). Everything follows from the low-resolution video, its
depth and the photograph, so a chunk that was not finished is made again with the same bytes.

Legend: t frames, h w pixels of low resolution, H W = 4h 4w.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lyra_core.errors import FrameError, LyraWarning, StoreError
from lyra_core.mini.carry import carry, pyramid
from lyra_core.mini.super_resolution import (
    FACTOR,
    Carried,
    Reference,
    SuperResolution,
    reduced,
    transfer_detail,
)
from lyra_core.replacing import replacing
from lyra_core.values import VideoClip
from lyra_core.video.chunk_store import chain_inputs
from lyra_core.video.world_state import to_bytes, to_unit_range

FRAMES_AT_ONCE = 4
"""Enlarged together: more need more memory and are no faster."""


class Enlarger:
    """Super-resolution of whole videos.

    Args:
        network: on its device; None transfers high frequencies without one.
        name: identifies the network's weights.
        chunk_frames: enlarged frames of one file of finished ones.
    """

    def __init__(self, network: SuperResolution | None, *, name: str, chunk_frames: int = 80) -> None:
        self.network, self.name, self.chunk_frames = network, name, chunk_frames

    @property
    def device(self) -> torch.device:
        """Where frames are enlarged."""
        return torch.device("cpu") if self.network is None else self.network.stem.weight.device

    @torch.no_grad()
    def enlarge(
        self,
        photograph: UInt8[Tensor, "H W 3"],
        clip: VideoClip,
        folder: Path | None = None,
        on_frame: Callable[[int, int], None] | None = None,
    ) -> UInt8[Tensor, "t H W 3"]:
        """All frames of a clip enlarged; the first is the photograph.

        Args:
            photograph: at full size; reduced four times it is the clip's first frame.
            clip: with depth of key frames, 0 in all others.
            folder: keeps finished chunks and takes them from there; None keeps nothing.
            on_frame: called after each chunk with (frames done, frames wanted).

        Raises:
            FrameError: sizes that do not fit, or no depth of the first frame.
            StoreError: the folder cannot be written.
        """
        known = self._key_frames(photograph, clip)
        # one chunk of frames after another: what is enlarged already is not kept twice
        frames = torch.empty(len(clip), *photograph.shape, dtype=torch.uint8)
        frames[0] = photograph
        chain = chain_inputs("", self.name, photograph)
        for begin in range(1, len(clip), self.chunk_frames):
            chunk = range(begin, min(begin + self.chunk_frames, len(clip)))
            chain = self._chain(chain, clip, chunk, known)
            path = None if folder is None else folder / f"enlarged-{begin // self.chunk_frames:04d}.safetensors"
            found = None if path is None else _read(path, chain)
            if found is None:
                found = self._chunk(clip, frames, chunk, known)
                if path is not None:
                    _write(path, found, chain)
            frames[chunk.start : chunk.stop] = found
            if on_frame is not None:
                on_frame(chunk.stop, len(clip))
        return frames

    def _key_frames(self, photograph: Tensor, clip: VideoClip) -> list[int]:
        height, width = (int(n) for n in clip.frames.shape[1:3])
        if tuple(photograph.shape[:2]) != (FACTOR * height, FACTOR * width):
            raise FrameError(
                f"a photograph for a video of {width}x{height} must have {FACTOR * width}x{FACTOR * height} pixels, "
                f"found {photograph.shape[1]}x{photograph.shape[0]}"
            )
        depth = clip.depth_m
        known = [] if depth is None else depth.flatten(1).any(1).nonzero().flatten().tolist()
        if not known or known[0] != 0:
            raise FrameError("enlarging a video needs the depth of its first frame, found none")
        return known

    def _chain(self, before: str, clip: VideoClip, chunk: range, known: list[int]) -> str:
        assert clip.depth_m is not None  # noqa: S101 - checked before the first chunk
        seen = slice(chunk.start, chunk.stop)
        # the chunk's frames are carried from key frames up to its own last one
        depth = [clip.depth_m[i] for i in known if chunk.start - 1 <= i < chunk.stop]
        cameras = clip.cameras
        return chain_inputs(
            before, clip.frames[seen], *depth, clip.depth_m[0], cameras.world_to_cam[seen], cameras.intrinsics[seen]
        )

    def _chunk(
        self, clip: VideoClip, frames: UInt8[Tensor, "t H W 3"], chunk: range, known: list[int]
    ) -> UInt8[Tensor, "k H W 3"]:
        """Frames of one chunk, group after group."""
        seed = _Picture.of(frames[0], self.device)
        made: list[Tensor] = []
        begin = chunk.start
        while begin < chunk.stop:
            key = max(i for i in known if i < begin)
            end = min([i + 1 for i in known if i >= begin] + [chunk.stop])
            end = min(end, begin + FRAMES_AT_ONCE)
            own = frames[key] if key < chunk.start else made[key - chunk.start]
            made += self._group(clip, seed, _Picture.of(own, self.device), key, range(begin, end))
            begin = end
        return torch.stack(made)

    def _group(self, clip: VideoClip, seed: _Picture, own: _Picture, key: int, group: range) -> list[Tensor]:
        low = torch.stack([to_unit_range(frame) for frame in clip.frames[group.start : group.stop]]).to(self.device)
        references = [self._reference(clip, seed, 0, group), self._reference(clip, own, key, group)]
        if self.network is not None:
            return list(to_bytes(self.network(low, references)).cpu())
        carried = [_as_it_lies(reference) for reference in references]
        return list(to_bytes(transfer_detail(low, carried)).cpu())

    def _reference(self, clip: VideoClip, picture: _Picture, source: int, group: range) -> Reference:
        assert clip.depth_m is not None  # noqa: S101 - checked before the first chunk
        w2c, K = clip.cameras.world_to_cam.to(self.device), clip.cameras.intrinsics.to(self.device)
        from_here, to_there = slice(source, source + 1), slice(group.start, group.stop)
        carriage = carry(
            clip.depth_m[from_here].to(self.device), w2c[from_here], K[from_here], w2c[to_there], K[to_there]
        )
        count = len(group)
        return Reference(
            levels=[level.expand(count, -1, -1, -1) for level in picture.levels],
            coarse=picture.coarse.expand(count, -1, -1, -1),
            carriage=carriage,
        )


class _Picture:
    """A picture of full size, ready to be carried."""

    def __init__(self, levels: list[Tensor], coarse: Float[Tensor, "1 3 h w"]) -> None:
        self.levels, self.coarse = levels, coarse

    @classmethod
    def of(cls, image: UInt8[Tensor, "H W 3"], device: torch.device) -> _Picture:
        whole = to_unit_range(image)[None].to(device)
        return cls(pyramid(whole), reduced(whole))


def _as_it_lies(reference: Reference) -> Carried:
    return reference.seen(reference.seen_coarse(), None)


def _read(path: Path, key: str) -> UInt8[Tensor, "k H W 3"] | None:
    """None where nothing is kept that was asked for like this, or nothing readable: it is made again."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            frames: Tensor = file.get_tensor("frames")
    except (OSError, SafetensorError) as error:
        warnings.warn(f"chunk {path} is unusable ({error}); it is enlarged again", LyraWarning, stacklevel=2)
        return None
    return frames


def _write(path: Path, frames: UInt8[Tensor, "k H W 3"], key: str) -> None:
    try:
        with replacing(path) as temporary:
            save_file({"frames": frames.contiguous()}, temporary, metadata={"key": key})
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; free space or choose another folder") from error
