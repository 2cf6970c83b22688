"""The growing state of one world: frames, latents, streams of the autoencoder, depth and memory.

Everything here follows from the seed and the sampled latents, so a world is rebuilt by appending them again.

Legend: t frames, n latents, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.config.rollout import MemoryConfig
from lyra_core.errors import FrameError
from lyra_core.values import CameraPath
from lyra_core.video.memory import SpatialMemory
from lyra_core.video.vae.interface import VideoAutoencoder
from lyra_core.video.vae.layers import CausalCache
from lyra_core.video.vae.network import VAE


class WorldState:
    """One world while it is generated.

    Attributes:
        history: latents of the video so far; the seed, repeated, comes first. [c n rows columns]
        last_image: the newest frame, in [-1, 1]. [3 h w]
        last_depth_m: its depth. [h w]
        depth_m: known depth by frame.
        memory: remembered frames.
        num_frames: frames so far, the seed included.
    """

    def __init__(
        self,
        vae: VideoAutoencoder,
        seed_image: UInt8[Tensor, "h w 3"],
        memory: MemoryConfig,
        device: torch.device,
        *,
        num_prefix: int,
        num_encoded: int | None,
        clamp: bool,
        latents_per_window: int,
    ) -> None:
        """Start from the photograph: repeat it `num_prefix` latents long, of which `num_encoded` are truly encoded."""
        height, width = seed_image.shape[:2]
        self.vae = vae
        self.clamp = clamp
        self.latents_per_window = latents_per_window
        self.device = device
        self.memory = SpatialMemory(height, width, memory, device)
        self.depth_m: dict[int, Tensor] = {}
        self.last_image = to_unit_range(seed_image.to(device))
        self.last_depth_m = torch.zeros(height, width, device=device)
        self.num_frames = 1
        self._images = {0: self.last_image}
        self._frames = [seed_image[None].cpu()]
        self._encoder, self._decoder = CausalCache(), CausalCache()
        encoded = min(num_encoded or num_prefix, num_prefix)
        latents = self._begin_streams(encoded)
        last = latents[:, :, -1:].expand(-1, -1, num_prefix - encoded, -1, -1)
        self.history = torch.cat([latents, last], dim=2)[0].float()

    def _begin_streams(self, count: int) -> Float[Tensor, "1 c n rows columns"]:
        """Encode the repeated photograph, `count` latents long, and tell the decoder of it."""
        vae, still = self.vae, self.last_image[None]
        if isinstance(vae, VAE):
            latents = vae.encode_still(still, count, self._encoder)
            vae.remember(latents, self._decoder)
            return latents
        repeated = still[:, :, None].expand(-1, -1, 1 + (count - 1) * vae.config.temporal_factor, -1, -1)
        latents = vae.encode(repeated, self._encoder, latents_per_window=self.latents_per_window)
        # Only the decoder's stream is wanted here: what it says of the repeated photograph is known.
        vae.decode(latents, self._decoder, latents_per_window=self.latents_per_window)
        return latents

    def append(
        self, sampled: Float[Tensor, "c n rows columns"], history: Float[Tensor, "c n rows columns"] | None = None
    ) -> Float[Tensor, "c n rows columns"]:
        """Take a chunk into the world: decode it, and encode its frames anew as the history of later chunks.

        Args:
            sampled: latents of the chunk.
            history: latents of an earlier run, kept in place of those encoded now.

        Returns:
            The chunk's history latents, float32.
        """
        latents = sampled[None].to(self.device)
        video = self.vae.decode(latents, self._decoder, latents_per_window=self.latents_per_window)
        if self.clamp:
            video = video.clamp(-1.0, 1.0)
        frames = video[0].float().transpose(0, 1)
        shown = to_host(to_bytes(frames))  # on its way while the frames are encoded
        encoded = self.vae.encode(video, self._encoder, latents_per_window=self.latents_per_window)[0].float()
        kept = encoded if history is None else history.to(encoded)
        step = self.memory.config.stride_frames
        for i in range(frames.shape[0]):
            if (self.num_frames + i) % step == 0:
                self._images[self.num_frames + i] = frames[i].clone()
        self.last_image = frames[-1].clone()
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self._frames.append(shown)
        self.num_frames += frames.shape[0]
        self.history = torch.cat([self.history, kept], dim=1)
        return kept

    def remember(
        self, frames: Sequence[int], depth_m: Float[Tensor, "k h w"], cameras: CameraPath, *, store: bool = True
    ) -> None:
        """Note depth of frames; those on the memory's stride and not in it yet are stored.

        Args:
            frames: ascending; the last one is the newest frame of the video.
            depth_m: 0 where unknown.
            cameras: of the whole video.
            store: False only notes the depth of the newest frame.
        """
        depth = depth_m.to(self.device)
        w2c, K = cameras.world_to_cam.float(), cameras.intrinsics.float()
        step = self.memory.config.stride_frames
        new = [i for i, frame in enumerate(frames) if store and frame % step == 0 and frame not in self.memory]
        if new:
            ids = [frames[i] for i in new]
            self.memory.add(ids, depth[new], w2c[ids], K[ids])
        for i, frame in enumerate(frames):
            self.depth_m.setdefault(frame, depth[i])
        self.last_depth_m = depth[-1]

    def join(
        self, view_id: int, image: UInt8[Tensor, "h w 3"], depth_m: Float[Tensor, "h w"], camera: CameraPath
    ) -> None:
        """Remember a photograph that is no frame of the video."""
        w2c, K = camera.world_to_cam.float(), camera.intrinsics.float()
        self.memory.add([view_id], depth_m[None].to(self.device), w2c, K, image[None])
        self._images[view_id] = to_unit_range(image.to(self.device))

    def image(self, frame_id: int) -> Float[Tensor, "3 h w"]:
        """A remembered frame or photograph, as decoded, in [-1, 1].

        Raises:
            FrameError: it was not kept.
        """
        if frame_id not in self._images:
            raise FrameError(f"frame {frame_id} was not kept; kept are {sorted(self._images)}")
        return self._images[frame_id]

    def frames(self, which: Sequence[int]) -> UInt8[Tensor, "k h w 3"]:
        """Frames of the video so far, sRGB."""
        return torch.cat(self._frames)[list(which)]


def to_host(tensor: Tensor) -> Tensor:
    """The tensor in the processor's memory; from a GPU it arrives when the stream has been waited for."""
    if not tensor.is_cuda:
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def to_unit_range(image: UInt8[Tensor, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """sRGB bytes to [-1, 1]."""
    return image.permute(2, 0, 1).float() / 127.5 - 1.0


def to_bytes(frames: Float[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t h w 3"]:
    """[-1, 1] to sRGB bytes, rounded; what lies outside is cut."""
    scaled = (frames.clamp(-1.0, 1.0) + 1.0) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1)
