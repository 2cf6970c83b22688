"""Where a reconstruction reads its video from: a clip in memory, or a stored one read in windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from lyra_core.errors import FormatError, FrameError
from lyra_core.replacing import replacing
from lyra_core.values import CameraPath, VideoClip

LAYERS = ("depth_m", "depth_confidence", "sky")


@runtime_checkable
class ClipSource(Protocol):
    """A video with its requested cameras, read in windows."""

    @property
    def cameras(self) -> CameraPath:
        """The requested cameras of all frames."""
        ...

    def window(self, frames: Int[Tensor, " t"]) -> VideoClip:
        """Some frames, with whatever depth, confidence and sky the video has."""
        ...


class MemoryClip:
    """A clip that is already in memory, on any device; windows lie on the CPU, where fusion runs."""

    def __init__(self, clip: VideoClip) -> None:
        self._clip = clip

    @property
    def cameras(self) -> CameraPath:
        """The requested cameras of all frames."""
        return self._clip.cameras

    def window(self, frames: Int[Tensor, " t"]) -> VideoClip:
        """Some frames, copied."""
        clip = self._clip

        def taken(layer: Tensor | None) -> Tensor | None:
            return None if layer is None else layer[frames.to(layer.device)].cpu()

        return VideoClip(
            frames=clip.frames[frames.to(clip.frames.device)].cpu(),
            cameras=clip.cameras[frames],
            fps=clip.fps,
            depth_m=taken(clip.depth_m),
            depth_confidence=taken(clip.depth_confidence),
            sky=taken(clip.sky),
        )


class StoredClip:
    """A clip in one safetensors file (see write_stored_clip); memory holds no more than the window asked for.

    Raises:
        FormatError: no such file, or not one that write_stored_clip wrote.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        with self._open() as file:
            names = set(file.keys())
            if not {"frames", "world_to_cam", "intrinsics"} <= names:
                raise FormatError(
                    f"{path} must hold frames, world_to_cam and intrinsics, found {', '.join(sorted(names))}; "
                    "write it with write_stored_clip"
                )
            self._layers = [name for name in LAYERS if name in names]
            _, height, width, _ = file.get_slice("frames").get_shape()
            self._cameras = CameraPath(
                world_to_cam=file.get_tensor("world_to_cam"),
                intrinsics=file.get_tensor("intrinsics"),
                image_height=height,
                image_width=width,
            )
            self._fps = float(file.get_tensor("fps"))

    def _open(self):  # type: ignore[no-untyped-def]  # safetensors' handle has no public type
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(str(self._path), "pt")
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{self._path} cannot be read as a stored clip: {error}") from error

    @property
    def cameras(self) -> CameraPath:
        """The requested cameras of all frames."""
        return self._cameras

    def window(self, frames: Int[Tensor, " t"]) -> VideoClip:
        """Some frames, read from the file.

        Raises:
            FrameError: an index outside the clip.
        """
        if len(frames) and not 0 <= int(frames.min()) <= int(frames.max()) < len(self._cameras):
            raise FrameError(
                f"the stored clip has frames 0 to {len(self._cameras) - 1}, asked for {frames.tolist()[:8]}"
            )
        with self._open() as file:
            parts: dict[str, Any] = {
                name: torch.cat([file.get_slice(name)[i : i + 1] for i in frames.tolist()])
                for name in ("frames", *self._layers)
            }
        return VideoClip(
            frames=parts["frames"],
            cameras=self._cameras[frames],
            fps=self._fps,
            depth_m=parts.get("depth_m"),
            depth_confidence=parts.get("depth_confidence"),
            sky=parts.get("sky"),
        )


def write_stored_clip(clip: VideoClip, path: str | Path) -> None:
    """Store a clip so that StoredClip can read windows of it; whole or not at all."""
    from safetensors.torch import save_file

    tensors = {
        "frames": clip.frames,
        "world_to_cam": clip.cameras.world_to_cam,
        "intrinsics": clip.cameras.intrinsics,
        "fps": torch.tensor(clip.fps, dtype=torch.float64),
    }
    tensors |= {name: layer for name in LAYERS if (layer := getattr(clip, name)) is not None}
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(temporary))
