"""Walks through a world chunk by chunk: everything the video model consists of meets here.

    photograph ----- VAE, repeated ----> history latents <-------------- re-encode --------------+
        |                                     |                                                  |
        +-- depth --> spatial memory          | anchor and newest                                |
                        |                     v                                                  |
    cameras ------------+--> retrieve --> conditioning --> DiT.prepare_context                   |
        |                     warp,          ^                   |                               |
        |                     rays           |                   v                               |
        |             last frame, its depth -+     noise --> sampler --> latents --> VAE --> 80 frames --> clip
        |                     ^                      ^                      |                    |
    captions -- text encoder -|----------------------+                      v                    |
    last frame - image encoder|                                     chunk store (durable)        |
                              +--- depth of the newest frames, in the memory's scale <-----------+
                                        |
                                        +--> spatial memory

A chunk is 80 frames (20 latents) in the released layout. Everything random derives from one seed a chunk. A chunk
counts when the store has it; a killed rollout replays the stored latents through the VAE, whose streams are then as
they were, and goes on.

Legend: t frames, n latents, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.config.rollout import REFERENCE, RolloutConfig, identity_text
from lyra_core.depth import DepthEstimator
from lyra_core.identity import rng_seed
from lyra_core.native import FRAMES_PER_SECOND
from lyra_core.values import CameraPath, Seed, VideoClip
from lyra_core.video.captions import Captioner, CaptionRequest, ManifestCaptions
from lyra_core.video.chunk_store import ChunkRecord, ChunkStore
from lyra_core.video.conditioning import ChunkRequest, Conditioner
from lyra_core.video.depth_cache import estimate_window, scale_views, window_frames
from lyra_core.video.dit.attention import KeyValue
from lyra_core.video.dit.context import ChunkInputs
from lyra_core.video.dit.network import DiT
from lyra_core.video.memory import query_offsets
from lyra_core.video.rollout_request import Photograph, RolloutRequest, require_fitting_network
from lyra_core.video.sampler import (
    Guidance,
    guided_velocity,
    reference_noise,
    sample_distilled,
    sample_euler,
    sample_unipc,
)
from lyra_core.video.schedule import FlowSchedule, distilled_schedule, euler_schedule, unipc_schedule
from lyra_core.video.vae.interface import VideoAutoencoder
from lyra_core.video.world_state import WorldState

TextEncoder = Callable[[Sequence[str]], Tensor]
"""Captions to embeddings [k s c]."""
ImageEncoder = Callable[[Tensor], Tensor]
"""An image in [-1, 1] [1 3 h w] to tokens [1 k c]."""
NoiseSeed = Callable[[str, int], int]
"""Chunk id and number to the seed of the chunk's noise."""


def seed_from_id(chunk_id: str, chunk: int) -> int:
    """The noise seed that follows from a chunk's id."""
    return rng_seed(chunk_id, "video", chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutModels:
    """The networks of a rollout, each on its device.

    Attributes:
        dit: the video network.
        vae: its autoencoder.
        depth: estimates depth of new frames.
        text: for a network that reads captions.
        image: for a network that sees the last frame's tokens.
        negative_text: the negative prompt of guidance, given as an embedding rather than as the config's
            negative_prompt (the released one is). [1 s c]
    """

    dit: DiT
    vae: VideoAutoencoder
    depth: DepthEstimator
    text: TextEncoder | None = None
    image: ImageEncoder | None = None
    negative_text: Tensor | None = None


class Rollout:
    """Generates worlds; holds models and choices, no world."""

    def __init__(
        self, models: RolloutModels, config: RolloutConfig = REFERENCE, noise_seed: NoiseSeed = seed_from_id
    ) -> None:
        """Check that networks and choices belong together.

        Raises:
            RecipeError: channels the network does not take, or an encoder that is missing.
        """
        require_fitting_network(
            models.dit.config,
            models.vae.config,
            config,
            has_text=models.text is not None,
            has_image=models.image is not None,
        )
        self.models = models
        self.config = config
        self.noise_seed = noise_seed
        self.layout = models.dit.config.history_layout
        self.chunk_frames = self.layout.num_generated * models.vae.config.temporal_factor

    @property
    def device(self) -> torch.device:
        """Where the video network lives; geometry is computed there too."""
        return self.models.dit.patch_embedding.weight.device

    @torch.no_grad()
    def run(
        self,
        seed: Seed,
        camera_path: CameraPath,
        captions: Sequence[str] | Captioner,
        chunk_ids: Sequence[str],
        store_dir: str | Path | None = None,
        *,
        photographs: Sequence[Photograph] = (),
        seed_depth_m: Float[Tensor, "h w"] | None = None,
        on_frame: Callable[[int, int], None] | None = None,
    ) -> VideoClip:
        """Generate the video of a world along a camera path.

        Args:
            seed: the photograph, frame 0 of the video.
            camera_path: one camera a frame, 1 + 80k frames of the photograph's size; the first is the photograph's.
            captions: one for all chunks or one a chunk, or what finds them.
            chunk_ids: one a chunk; noise derives from them.
            store_dir: keeps finished chunks and resumes from them; None keeps nothing.
            photographs: more pictures of the same place with known cameras.
            seed_depth_m: depth of the photograph if it is known already (0 where unknown), metres.
            on_frame: called after each chunk with (frames done, frames wanted).

        Returns:
            The clip, with depth of the frames the memory has seen (0 elsewhere).

        Raises:
            FrameError: a frame count other than 1 + 80k, or an image of another size or of no whole latents.
            CameraPathError: cameras for another image size, or another number of chunks than ids.
            PromptError: no captions, or another number of them.
            DepthError: the estimator found nothing.
            StoreError: finished chunks cannot be read or written.
        """
        captioner = captions if isinstance(captions, Captioner) else ManifestCaptions(captions)
        request = RolloutRequest(
            seed=seed,
            camera_path=camera_path,
            chunk_ids=tuple(chunk_ids),
            photographs=tuple(photographs),
            seed_depth_m=seed_depth_m,
        )
        request.require_fitting(self.chunk_frames, self.models.vae.config.spatial_factor)
        if isinstance(captioner, ManifestCaptions):
            captioner.require(len(request.chunk_ids))
        world = self._begin(request)
        conditioner = self._conditioner(world)
        store = None if store_dir is None else ChunkStore(store_dir, ChunkRecord)
        chain = request.inputs_start(identity_text(self.config))
        for chunk, chunk_id in enumerate(request.chunk_ids):
            self._join_photographs(world, request, chunk)
            caption = None if store is None else store.caption(chunk, chunk_id)
            if caption is None:
                caption = captioner.caption(self._caption_request(world, request, chunk))
            chain = request.inputs_next(chain, chunk, caption, self.chunk_frames)
            record = None if store is None else store.read(chunk, chunk_id, chain)
            if record is None:
                record = self._generate(world, conditioner, request, chunk, caption, chain)
                if store is not None:
                    store.write(chunk, record)
            else:
                world.append(record.sampled, record.history)
            world.remember(record.depth_frames.tolist(), record.depth_m, request.camera_path)
            if on_frame is not None:
                on_frame(world.num_frames, len(camera_path))
        return self._clip(world, request)

    # ---------------------------------------------------------------- before the first chunk

    def _begin(self, request: RolloutRequest) -> WorldState:
        """The world as the photograph alone shows it."""
        config = self.config
        world = WorldState(
            self.models.vae,
            request.seed.image,
            config.memory,
            self.device,
            num_prefix=self.layout.num_history,
            num_encoded=config.encoded_prefix,
            clamp=config.clamp_frames,
            latents_per_window=config.latents_per_window,
        )
        depth = request.seed_depth_m
        if depth is None:
            frame = request.seed.image[None]
            depth = estimate_window(self.models.depth, frame, None, (), config.conditioning.warp, config.depth)[0]
        initial = [p for p in request.photographs if p.from_chunk == 0]
        world.remember([0], depth[None], request.camera_path, store=not (initial and config.photographs_replace_seed))
        return world

    def _join_photographs(self, world: WorldState, request: RolloutRequest, chunk: int) -> None:
        """Remember the photographs that join before this chunk, under negative ids in their order."""
        for index, photograph in enumerate(request.photographs):
            if photograph.from_chunk != chunk:
                continue
            depth = photograph.depth_m
            if depth is None:
                depth = self._estimate(world, photograph.image[None], photograph.camera)[0]
            world.join(-1 - index, photograph.image, depth, photograph.camera)
            if chunk == 0 and index == 0 and self.config.photographs_replace_seed:
                world.last_depth_m = depth.to(world.last_depth_m)

    def _conditioner(self, world: WorldState) -> Conditioner:
        return Conditioner(
            self.models.vae,
            self.layout,
            world.image,
            self.config.conditioning,
            latents_per_window=self.config.latents_per_window,
        )

    # ---------------------------------------------------------------- one chunk

    def _generate(
        self,
        world: WorldState,
        conditioner: Conditioner,
        request: RolloutRequest,
        chunk: int,
        caption: str,
        chain: str,
    ) -> ChunkRecord:
        """Sample a chunk, take its frames into the world and estimate their depth."""
        cameras = request.camera_path
        first = 1 + chunk * self.chunk_frames
        frames = slice(first, first + self.chunk_frames)
        inputs = conditioner.build(self._chunk_request(world, cameras, first))
        sampled = self._sample(inputs, world, request.chunk_ids[chunk], chunk, caption)
        history = world.append(sampled)
        window = window_frames(frames.stop - 1, self.chunk_frames, self.config.depth)
        depth = self._estimate(world, world.frames(window), cameras[window])
        return ChunkRecord(
            chunk_id=request.chunk_ids[chunk],
            inputs_sha256=chain,
            caption=caption,
            sampled=sampled,
            history=history,
            depth_m=depth,
            depth_frames=torch.tensor(window),
            world_to_cam=cameras.world_to_cam[frames],
            intrinsics=cameras.intrinsics[frames],
        )

    def _chunk_request(self, world: WorldState, cameras: CameraPath, first: int) -> ChunkRequest:
        w2c = cameras.world_to_cam.to(self.device, torch.float32)
        K = cameras.intrinsics.to(self.device, torch.float32)
        asking = [first + i for i in query_offsets(self.config.memory.num_query_cameras, self.chunk_frames)]
        retrieved = world.memory.retrieve(w2c[asking], K[asking])
        return ChunkRequest(
            world_to_cam=w2c[: first + self.chunk_frames],
            intrinsics=K[: first + self.chunk_frames],
            first_frame=first,
            history=world.history,
            last_image=world.last_image,
            last_depth_m=world.last_depth_m,
            retrieved=tuple(world.memory.view(i) for i in retrieved),
        )

    def _sample(
        self, inputs: ChunkInputs, world: WorldState, chunk_id: str, chunk: int, caption: str
    ) -> Float[Tensor, "c n rows columns"]:
        """Latents of the chunk, float32."""
        config, dit, models = self.config, self.models.dit, self.models
        text = None if models.text is None else models.text([caption])
        image = None if models.image is None else models.image(world.last_image[None])
        context = dit.prepare_context(_on(self.device, replace(inputs, text=text, image=image)))
        shape = (1, dit.config.latent_channels, self.layout.num_generated, *inputs.history.shape[3:])
        seed = self.noise_seed(chunk_id, chunk)
        # Drawn on the CPU, so that a seed means the same noise on every device; never from a global generator.
        generator = torch.Generator().manual_seed(seed)
        if config.noise == "reference":
            noise = reference_noise(shape, seed % 2**32).to(self.device)
        else:
            noise = torch.randn(shape, generator=generator).to(self.device)
        if config.sampler == "distilled":
            return sample_distilled(
                lambda latents, timestep: dit(latents, timestep, context),
                noise,
                distilled_schedule(shift=config.shift),
                lambda _: torch.randn(shape, generator=generator),
            )[0]
        scale = 1.0 if models.text is None else config.guidance_scale
        negative: tuple[KeyValue, ...] = ()
        if models.text is not None and scale != 1.0:
            away = models.text([config.negative_prompt]) if models.negative_text is None else models.negative_text
            negative = dit.prepare_text(away.to(self.device))
        guidance = Guidance(
            scale=scale,
            first_noise=config.guidance_first_noise,
            last_noise=config.guidance_last_noise,
            is_batched=config.batched_guidance,
        )
        velocity = guided_velocity(dit, context, negative, guidance)
        solve = sample_euler if config.sampler == "euler" else sample_unipc
        return solve(velocity, noise, self._schedule())[0]

    def _schedule(self) -> FlowSchedule:
        make = euler_schedule if self.config.sampler == "euler" else unipc_schedule
        schedule = make(self.config.num_steps, self.config.shift)
        if self.config.exact_timesteps:
            return replace(schedule, timesteps=schedule.sigmas[:-1] * 1000.0)
        return schedule

    def _estimate(
        self, world: WorldState, frames: UInt8[Tensor, "k h w 3"], cameras: CameraPath
    ) -> Float[Tensor, "k h w"]:
        """Depth of new frames in the memory's scale."""
        return estimate_window(
            self.models.depth,
            frames,
            cameras,
            scale_views(world.memory, cameras, self.config.depth),
            self.config.conditioning.warp,
            self.config.depth,
        )

    def _caption_request(self, world: WorldState, request: RolloutRequest, chunk: int) -> CaptionRequest:
        return CaptionRequest(
            chunk=chunk, seed_image=request.seed.image, last_image=world.frames([world.num_frames - 1])[0]
        )

    # ---------------------------------------------------------------- after the last chunk

    def _clip(self, world: WorldState, request: RolloutRequest) -> VideoClip:
        frames = world.frames(range(world.num_frames))
        depth = torch.zeros(frames.shape[:3])
        for frame, known in world.depth_m.items():
            depth[frame] = known.cpu()
        return VideoClip(frames=frames, cameras=request.camera_path, fps=FRAMES_PER_SECOND, depth_m=depth)


def _on(device: torch.device, inputs: ChunkInputs) -> ChunkInputs:
    """The same inputs on the network's device."""
    moved = {
        name: getattr(inputs, name).to(device)
        for name in ("history", "condition", "rays", "correspondence", "text", "image")
        if getattr(inputs, name) is not None
    }
    return replace(inputs, **moved)
