"""What is asked of a rollout: checked before anything is computed, digested so that finished chunks are recognised."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.config.rollout import RolloutConfig
from lyra_core.errors import CameraPathError, FrameError, RecipeError
from lyra_core.values import CameraPath, Seed
from lyra_core.video.chunk_store import chain_inputs
from lyra_core.video.conditioning import MASK_CHANNELS
from lyra_core.video.dit.config import DiTConfig
from lyra_core.video.vae.interface import AutoencoderConfig

RAY_CHANNELS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One more picture of the place, from a known camera; it joins the memory under a negative id.

    Attributes:
        image: sRGB, of the seed's size. [h w 3]
        camera: one camera in the frame of the camera path.
        depth_m: its depth if it is known already, 0 where unknown. [h w]
        from_chunk: the chunk before which it joins; earlier chunks do not depend on it.
    """

    image: UInt8[Tensor, "h w 3"]
    camera: CameraPath
    depth_m: Float[Tensor, "h w"] | None = None
    from_chunk: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """One world to generate; see lyra_core.video.rollout.Rollout.run."""

    seed: Seed
    camera_path: CameraPath
    chunk_ids: tuple[str, ...]
    photographs: tuple[Photograph, ...] = ()
    seed_depth_m: Float[Tensor, "rows columns"] | None = None

    def require_fitting(self, chunk_frames: int, latent_stride: int) -> None:
        """Check counts and sizes.

        Raises:
            FrameError: a frame count other than 1 + chunks, or an image of no whole latents.
            CameraPathError: cameras for another image size, or another number of chunks than ids.
        """
        frames, (height, width) = len(self.camera_path), self.seed.image.shape[:2]
        if (frames - 1) % chunk_frames:
            below = frames - (frames - 1) % chunk_frames
            raise FrameError(
                f"a video has 1 + {chunk_frames}k frames, found {frames} cameras; "
                f"the nearest are {below} and {below + chunk_frames}"
            )
        if (frames - 1) // chunk_frames != len(self.chunk_ids):
            raise CameraPathError(
                f"{len(self.chunk_ids)} chunk ids need cameras for {1 + chunk_frames * len(self.chunk_ids)} frames, "
                f"found {frames}"
            )
        if height % latent_stride or width % latent_stride:
            raise FrameError(f"images must be multiples of {latent_stride} pixels on both axes, found {width}x{height}")
        self._require_size("the camera path", self.camera_path)
        for photograph in self.photographs:
            self._require_photograph(photograph)
        depth = self.seed_depth_m
        if depth is not None and depth.shape != (height, width):
            raise FrameError(f"the seed's depth must be {width}x{height}, found {depth.shape[1]}x{depth.shape[0]}")

    def _require_size(self, what: str, cameras: CameraPath) -> None:
        height, width = self.seed.image.shape[:2]
        if (cameras.image_height, cameras.image_width) != (height, width):
            raise CameraPathError(
                f"{what} is for {cameras.image_width}x{cameras.image_height} images, the seed is {width}x{height}; "
                f"call resized({height}, {width})"
            )

    def _require_photograph(self, photograph: Photograph) -> None:
        self._require_size("a photograph's camera", photograph.camera)
        if len(photograph.camera) != 1:
            raise CameraPathError(f"a photograph has one camera, found {len(photograph.camera)}")
        if photograph.image.shape != self.seed.image.shape:
            shape = photograph.image.shape
            raise FrameError(
                f"a photograph must have the seed's size {self.seed.image.shape[1]}x{self.seed.image.shape[0]}, "
                f"found {shape[1]}x{shape[0]}"
            )

    def inputs_start(self, choices: str) -> str:
        """Digest of what all chunks share: the choices and the photograph."""
        known = () if self.seed_depth_m is None else (self.seed_depth_m,)
        return chain_inputs("", choices, self.seed.image, self.camera_path.world_to_cam[0], *known)

    def inputs_next(self, previous: str, chunk: int, caption: str, chunk_frames: int) -> str:
        """Digest up to and with a chunk: its cameras, caption, and the photographs that join before it."""
        frames = slice(1 + chunk * chunk_frames, 1 + (chunk + 1) * chunk_frames)
        parts: list[str | Tensor] = [
            caption,
            self.camera_path.world_to_cam[frames],
            self.camera_path.intrinsics[frames],
        ]
        for photograph in self.photographs:
            if photograph.from_chunk == chunk:
                parts += [photograph.image, photograph.camera.world_to_cam, photograph.camera.intrinsics]
        return chain_inputs(previous, *parts)


def require_fitting_network(
    dit: DiTConfig, vae: AutoencoderConfig, config: RolloutConfig, *, has_text: bool, has_image: bool
) -> None:
    """Check that networks, encoders and choices belong together.

    Raises:
        RecipeError: channels the network does not take, or an encoder that is missing or too many.
    """
    correspondence = config.conditioning.correspondence
    cell = vae.spatial_factor // config.conditioning.ray_downsample
    wanted = {
        "latent_channels": (dit.latent_channels, vae.latent_channels),
        "condition_channels": (dit.condition_channels, MASK_CHANNELS + vae.latent_channels),
        "ray_channels": (dit.ray_channels, RAY_CHANNELS * cell**2),
        "correspondence_channels": (
            dit.correspondence_channels,
            correspondence.num_blocks * correspondence.block_channels,
        ),
        "spatial slots": (len(dit.history_layout.spatial_slots), correspondence.num_blocks),
        "most retrieved frames": (config.memory.num_retrieved, correspondence.num_blocks),
        "latent stride": (vae.spatial_factor, correspondence.latent_stride),
        "frames of a latent": (vae.temporal_factor, MASK_CHANNELS),
    }
    wrong = [f"{name}: {found} against {given}" for name, (found, given) in wanted.items() if found != given]
    if wrong:
        raise RecipeError(f"the network and the rollout's choices do not fit ({'; '.join(wrong)})")
    for name, needs, has in (("text", dit.text_dim, has_text), ("image", dit.image_dim, has_image)):
        if (needs is not None) != has:
            raise RecipeError(
                f"the network {'needs' if needs is not None else 'takes no'} {name} tokens: "
                f"{'give a' if needs is not None else 'leave out the'} {name} encoder"
            )
