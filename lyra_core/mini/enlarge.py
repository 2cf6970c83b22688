"""Enlarges a generated video four times, from key frame to key frame, guided by the photograph it began with.

    photograph ------------- warped by its depth ----------+
    key frame, enlarged ---- warped by its depth --------+ |
                                                          v v
    frames after it, up to the next key frame --- super-resolution ---> enlarged frames; the last is the next key frame

Key frames are those whose depth the memory knows (every eighth). Everything follows from the low-resolution video, its
depth and the photograph, so a chunk that was not finished is made again with the same bytes.

Legend: t frames, h w pixels of low resolution, H W = 4h 4w.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import FrameError, LyraWarning, StoreError
from lyra_core.mini.backward_warp import BackwardWarp, backward_warp, enlarged_inverse, is_edge, pyramid
from lyra_core.mini.super_resolution import (
    FACTOR,
    INPUTS,
    SOURCES,
    Reference,
    SuperResolution,
    Warped,
    reduced,
    transfer_detail,
)
from lyra_core.native import CHUNK_FRAMES
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
        is_plain: leave the compiled loops of a CPU aside; to compare them.
    """

    def __init__(
        self,
        network: SuperResolution | None,
        *,
        name: str,
        chunk_frames: int = CHUNK_FRAMES,
        is_plain: bool = False,
    ) -> None:
        self.network, self.name, self.chunk_frames, self.is_plain = network, name, chunk_frames, is_plain

    @property
    def factor(self) -> int:
        """How many times frames grow, along each side."""
        return FACTOR

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
    ) -> VideoClip:
        """A clip with all frames enlarged; the first is the photograph.

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
            finished = None if path is None else _read(path, chain)
            if finished is None:
                finished = self._chunk(clip, frames, chunk, known)
                if path is not None:
                    _write(path, finished, chain)
            frames[chunk.start : chunk.stop] = finished
            if on_frame is not None:
                on_frame(chunk.stop, len(clip))
        height, width = (int(n) for n in photograph.shape[:2])
        assert clip.depth_m is not None  # noqa: S101 - checked before the first chunk
        depth = torch.zeros(len(clip), height, width)
        for frame in known:
            depth[frame] = enlarged_depth(clip.depth_m[frame])
        return replace(clip, frames=frames, cameras=clip.cameras.resized(height, width), depth_m=depth)

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
        # the chunk's frames are warped from key frames up to its own last one
        depth = [clip.depth_m[i] for i in known if chunk.start - 1 <= i < chunk.stop]
        cameras = clip.cameras
        return chain_inputs(
            before, clip.frames[seen], *depth, clip.depth_m[0], cameras.world_to_cam[seen], cameras.intrinsics[seen]
        )

    def _chunk(
        self, clip: VideoClip, frames: UInt8[Tensor, "t H W 3"], chunk: range, known: list[int]
    ) -> UInt8[Tensor, "k H W 3"]:
        """Frames of one chunk, group after group."""
        seed = _Picture(frames[0], self.device)
        made: list[Tensor] = []
        begin = chunk.start
        while begin < chunk.stop:
            key = max(i for i in known if i < begin)
            end = min([i + 1 for i in known if i >= begin] + [chunk.stop])
            end = min(end, begin + FRAMES_AT_ONCE)
            own = frames[key] if key < chunk.start else made[key - chunk.start]
            made += self._group(clip, seed, _Picture(own, self.device), key, range(begin, end))
            begin = end
        return torch.stack(made)

    def _group(self, clip: VideoClip, seed: _Picture, own: _Picture, key: int, group: range) -> list[Tensor]:
        low = torch.stack([to_unit_range(frame) for frame in clip.frames[group.start : group.stop]]).to(self.device)
        pictures = [(seed, self._warp(clip, 0, group)), (own, self._warp(clip, key, group))]
        if self.network is None:
            warped = [_as_it_lies(picture.reference(warp)) for picture, warp in pictures]
            return list(to_bytes(transfer_detail(low, warped)).cpu())
        if self.device.type == "cpu" and not self.is_plain:
            return list(_enlarged_by_loops(self.network, low, pictures))
        references = [picture.reference(warp) for picture, warp in pictures]
        return list(to_bytes(self.network(low, references)).cpu())

    def _warp(self, clip: VideoClip, source: int, group: range) -> BackwardWarp:
        """From a frame to some later ones."""
        assert clip.depth_m is not None  # noqa: S101 - checked before the first chunk
        w2c, K = clip.cameras.world_to_cam.to(self.device), clip.cameras.intrinsics.to(self.device)
        here, there = slice(source, source + 1), slice(group.start, group.stop)
        return backward_warp(clip.depth_m[here].to(self.device), w2c[here], K[here], w2c[there], K[there])


def _enlarged_by_loops(
    network: SuperResolution, low: Float[Tensor, "b 3 h w"], pictures: list[tuple[_Picture, BackwardWarp]]
) -> UInt8[Tensor, "b H W 3"]:
    """What the network makes of frames, on a CPU: the plain way's numbers, but for the rounding of the last bits."""
    from lyra_core.jit import kernel_threads
    from lyra_core.mini.detail_kernels import compose_frame, warp_blocks

    b, _, h, w = low.shape
    pixels = low.permute(0, 2, 3, 1).contiguous()
    inputs = torch.zeros(b, h, w, 3 + SOURCES * INPUTS)
    inputs[..., :3] = pixels
    shifts = [network.shift(low, picture.reference(warp)) for picture, warp in pictures]
    for index, ((picture, warp), shift) in enumerate(zip(pictures, shifts, strict=True)):
        edges = is_edge(warp.inverse_depth).numpy()
        moved = torch.zeros(b, h, w, 2) if shift is None else shift.permute(0, 2, 3, 1).contiguous()
        for frame in range(b):
            with kernel_threads():
                warp_blocks(
                    *picture.bytes,
                    warp.inverse_depth[frame].numpy(),
                    edges[frame],
                    warp.cover[frame].numpy(),
                    warp.matrix[frame].numpy(),
                    warp.offset[frame].numpy(),
                    np.float32(warp.zoom[frame]),
                    moved[frame].numpy(),
                    pixels[frame].numpy(),
                    3 + index * INPUTS,
                    inputs[frame].numpy(),
                )
    out = network.trunk(inputs.permute(0, 3, 1, 2).to(network.dtype))
    head = out.permute(0, 2, 3, 1).float().contiguous()
    frames = torch.empty(b, FACTOR * h, FACTOR * w, 3, dtype=torch.uint8)
    for frame in range(b):
        with kernel_threads():
            compose_frame(pixels[frame].numpy(), inputs[frame].numpy(), head[frame].numpy(), frames[frame].numpy())
    return frames


def enlarged_depth(depth_m: Float[Tensor, "h w"]) -> Float[Tensor, "H W"]:
    """Depth of full size, planes kept plane and edges sharp; 0 where unknown."""
    inverse = torch.where(depth_m > 0, 1 / depth_m.clamp(min=1e-6), torch.zeros_like(depth_m))
    larger = enlarged_inverse(inverse[None], FACTOR)[0]
    return torch.where(larger > 0, 1 / larger.clamp(min=1e-9), torch.zeros_like(larger))


def reduced_image(image: UInt8[Tensor, "H W 3"], factor: int) -> UInt8[Tensor, "h w 3"]:
    """Means of factor x factor pixels, rounded."""
    planes = functional.avg_pool2d(image.permute(2, 0, 1)[None].float(), factor)[0]
    return planes.round().to(torch.uint8).permute(1, 2, 0).contiguous()


class _Picture:
    """A picture of full size, ready to be warped: its levels rounded to bytes."""

    def __init__(self, image: UInt8[Tensor, "H W 3"], device: torch.device) -> None:
        whole = to_unit_range(image)[None].to(device)
        levels = [to_bytes(level) for level in pyramid(whole)]
        self.levels = [to_unit_range(level[0])[None] for level in levels]
        self.coarse = reduced(whole)
        self.bytes = [level[0].cpu().contiguous().numpy() for level in levels]

    def reference(self, warp: BackwardWarp) -> Reference:
        """The picture for some frames."""
        count = len(warp)
        return Reference(
            levels=[level.expand(count, -1, -1, -1) for level in self.levels],
            coarse=self.coarse.expand(count, -1, -1, -1),
            warp=warp,
        )


def _as_it_lies(reference: Reference) -> Warped:
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
