"""Walks through a world chunk by chunk with Cosmos 3.

    photograph, or last frames ----------+
                                         v
    cameras --> actions (camera) ----> window --> sampler --> new frames (8 bits) --> clip
       |        depth video (depth)      ^                          |
       +------> words (image)            |                          v
                                         |        depth network: depth and cameras of new frames
       memory's pixels (replace) --------+                          |
              ^-----------------------------------------------------+

A window begins with frames that exist: the photograph, or the last one or five frames of the chunk before, as eight-bit
pixels. That is what the store keeps, so that a resumed world has the same bytes. The network's copies of these frames
are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lyra_core.config.cosmos import CosmosOptions
from lyra_core.config.rollout import identity_text
from lyra_core.cosmos.actions import path_to_actions, warn_of_long_steps
from lyra_core.cosmos.adherence import bend_back, between, frames_to_look_at, look, measure
from lyra_core.cosmos.captions import json_caption, without_marks
from lyra_core.cosmos.pipeline import FrameWindow, Sampler
from lyra_core.cosmos.scene_memory import SceneMemory, depth_range, depth_video
from lyra_core.depth import DepthEstimator
from lyra_core.errors import RecipeError
from lyra_core.identity import rng_seed
from lyra_core.values import CameraPath, Seed, VideoClip
from lyra_core.video.captions import Captioner, CaptionRequest, ManifestCaptions
from lyra_core.video.chunk_store import ChunkStore, StoredChunk
from lyra_core.video.depth_cache import mask_depth
from lyra_core.video.rollout_request import Photograph, RolloutRequest

SPATIAL_FACTOR = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmosRecord(StoredChunk):
    """What one finished chunk leaves behind.

    Attributes:
        frames: its new frames, sRGB. [f h w 3]
        latents: of its whole window. [c n y x] float32
        actions: as sent; none where no cameras were. [s 9] float32
        recovered: cameras found in its new frames, world to camera. [f 4 4] float64
        depth_m: depth of some new frames, 0 where unknown. [k h w] float32
        depth_frames: which. [k] int64
        adherence: rotation (degrees), direction (degrees), ratio of lengths. [3] float64
        depth_limits: inverse depths that are black and white in depth videos, 1/m. [2] float64
        world_to_cam: cameras requested for its new frames. [f 4 4] float64
        intrinsics: theirs. [f 3 3] float64
    """

    frames: UInt8[Tensor, "f h w 3"]
    latents: Float[Tensor, "c n y x"]
    actions: Float[Tensor, "s 9"]
    recovered: Float[Tensor, "f 4 4"]
    depth_m: Float[Tensor, "k h w"]
    depth_frames: Int64[Tensor, " k"]
    adherence: Float[Tensor, " 3"]
    depth_limits: Float[Tensor, " 2"]
    world_to_cam: Float[Tensor, "f 4 4"]
    intrinsics: Float[Tensor, "f 3 3"]


@dataclass(slots=True, kw_only=True)
class _World:
    """A world in the making.

    Attributes:
        frames: so far. [t h w 3]
        found: cameras found in them. [t 4 4]
        depth_m: of some frames, by number.
        memory: for modes that look back, else None.
        depth_limits: of depth videos.
    """

    frames: Tensor
    found: Tensor
    depth_m: dict[int, Tensor] = field(default_factory=dict)
    memory: SceneMemory | None = None
    depth_limits: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A clip, and the cameras that were found in its frames, one a frame, in the frame of the requested ones."""

    clip: VideoClip
    found: CameraPath


class CosmosRollout:
    """Generates worlds; holds a sampler and choices, no world."""

    def __init__(self, sampler: Sampler, depth: DepthEstimator, options: CosmosOptions) -> None:
        self.sampler = sampler
        self.depth = depth
        self.options = options
        self.chunk_frames = options.chunk_frames

    def run(
        self,
        seed: Seed,
        camera_path: CameraPath,
        captions: Sequence[str] | Captioner,
        chunk_ids: Sequence[str],
        store_dir: str | Path | None = None,
        *,
        photographs: Sequence[Photograph] = (),
        seed_depth_m: Tensor | None = None,
        on_frame: Callable[[int, int], None] | None = None,
    ) -> VideoClip:
        """Generate the video of a world along a camera path.

        Args:
            seed: the photograph, frame 0 of the video; of a canvas of the model.
            camera_path: one camera a frame, 1 + chunks; the first is the photograph's.
            captions: one for all chunks or one a chunk, or what finds them.
            chunk_ids: one a chunk; noise derives from them.
            store_dir: keeps finished chunks and resumes from them; None keeps nothing.
            photographs: none: this model cannot look at further ones.
            seed_depth_m: depth of the photograph if it is known already (0 where unknown), metres. [h w]
            on_frame: called after each chunk with (frames done, frames wanted).

        Returns:
            The clip with the requested cameras; in "image", which is asked for no cameras, with those found in its
            frames.

        Raises:
            FrameError: a frame count other than 1 + chunks, or an image of another size.
            CameraPathError: cameras for another image size, or another number of chunks than ids.
            PromptError: no captions, or another number of them.
            RecipeError: further photographs.
            DepthError: the estimator found nothing.
            StoreError: finished chunks cannot be read or written.
        """
        return self.follow(
            seed,
            camera_path,
            captions,
            chunk_ids,
            store_dir,
            photographs=photographs,
            seed_depth_m=seed_depth_m,
            on_frame=on_frame,
        ).clip

    @torch.no_grad()
    def follow(
        self,
        seed: Seed,
        camera_path: CameraPath,
        captions: Sequence[str] | Captioner,
        chunk_ids: Sequence[str],
        store_dir: str | Path | None = None,
        *,
        photographs: Sequence[Photograph] = (),
        seed_depth_m: Tensor | None = None,
        on_frame: Callable[[int, int], None] | None = None,
    ) -> Followed:
        """As `run`, and the cameras that were found.

        Raises:
            RecipeError: further photographs.
            as `run`.
        """
        if photographs:
            raise RecipeError("Cosmos 3 sees one photograph, found more; leave them out, or take recipe lyra2")
        captioner = captions if isinstance(captions, Captioner) else ManifestCaptions(captions)
        request = RolloutRequest(
            seed=seed, camera_path=camera_path, chunk_ids=tuple(chunk_ids), seed_depth_m=seed_depth_m
        )
        request.require_fitting(self.chunk_frames, SPATIAL_FACTOR)
        if isinstance(captioner, ManifestCaptions):
            captioner.require(len(request.chunk_ids))
        if self.options.mode == "camera":
            warn_of_long_steps(camera_path, self.options.action_gain)
        world = self._begin(request)
        store = None if store_dir is None else ChunkStore(store_dir, CosmosRecord)
        chain = request.inputs_start(identity_text(self.options))
        for chunk, chunk_id in enumerate(request.chunk_ids):
            caption = None if store is None else store.caption(chunk, chunk_id)
            if caption is None:
                caption = captioner.caption(
                    CaptionRequest(chunk=chunk, seed_image=seed.image, last_image=world.frames[-1])
                )
            chain = request.inputs_next(chain, chunk, caption, self.chunk_frames)
            record = None if store is None else store.read(chunk, chunk_id, chain)
            if record is None:
                record = self._generate(world, request, chunk, caption, chain)
                if store is not None:
                    store.write(chunk, record)
            self._take(world, record, camera_path)
            if on_frame is not None:
                on_frame(len(world.frames), len(camera_path))
        return self._followed(world, request)

    def _begin(self, request: RolloutRequest) -> _World:
        """The world as the photograph alone shows it."""
        image, cameras = request.seed.image, request.camera_path
        depth = request.seed_depth_m
        if depth is None:
            depth = mask_depth(self.depth.estimate(image[None], None), self.options.depth)[0]
        world = _World(frames=image[None], found=cameras.world_to_cam[:1].clone(), depth_m={0: depth.cpu().float()})
        world.depth_limits = depth_range(world.depth_m[0])
        if self.options.mode == "depth" or self.options.memory != "none":
            world.memory = SceneMemory(*image.shape[:2])
            world.memory.add([0], image[None], world.depth_m[0][None], cameras[:1])
        return world

    def _generate(self, world: _World, request: RolloutRequest, chunk: int, caption: str, chain: str) -> CosmosRecord:
        """Sample a chunk, and find depth and cameras of its frames."""
        first = 1 + chunk * self.chunk_frames
        window = self._window(world, request, chunk, caption)
        made = self.sampler(window)
        frames = made.frames[len(window.known) :]
        looked = frames_to_look_at(first, self.chunk_frames, self.options.depth.interval_frames)
        asked = request.camera_path[looked]
        shown = torch.cat([world.frames[-1:], frames[[i - first for i in looked[1:]]]])
        stand_in = None if self.options.mode == "image" else asked
        seen = look(self.depth, shown, world.depth_m[first - 1], world.found[first - 1], stand_in, self.options.depth)
        new = slice(first, first + self.chunk_frames)
        return CosmosRecord(
            chunk_id=request.chunk_ids[chunk],
            inputs_sha256=chain,
            caption=caption,
            frames=frames,
            latents=made.latents,
            actions=torch.zeros(0, 9) if window.actions is None else window.actions,
            recovered=between(looked, seen.world_to_cam)[1:],
            depth_m=seen.depth_m[1:].cpu().float(),
            depth_frames=torch.tensor(looked[1:]),
            adherence=measure(asked.world_to_cam, seen.world_to_cam).as_tensor(),
            depth_limits=torch.tensor(world.depth_limits, dtype=torch.float64),
            world_to_cam=request.camera_path.world_to_cam[new],
            intrinsics=request.camera_path.intrinsics[new],
        )

    def _window(self, world: _World, request: RolloutRequest, chunk: int, caption: str) -> FrameWindow:
        options = self.options
        first = 1 + chunk * self.chunk_frames
        overlap = options.overlap_frames if chunk else 1
        frames = slice(first - overlap, first + self.chunk_frames)
        cameras = request.camera_path[frames]
        if options.is_closed_loop and chunk:
            cameras = self._bent(world, cameras, overlap, first)
        height, width = request.seed.image.shape[:2]
        num_frames = options.window_frames(chunk)
        words = without_marks(caption)
        if options.caption_form == "json":
            words = json_caption(
                words,
                request.camera_path.name,
                num_frames=num_frames,
                fps=options.fps,
                width=width,
                height=height,
            )
        window = FrameWindow(
            known=world.frames[-overlap:],
            num_frames=num_frames,
            caption=words,
            seed=rng_seed(request.chunk_ids[chunk], "video", chunk),
            actions=path_to_actions(cameras, options.action_gain) if options.mode == "camera" else None,
        )
        if world.memory is None:
            return window
        if options.mode == "depth":
            return replace(window, control=depth_video(world.memory.depth_along(cameras), world.depth_limits))
        return replace(window, memory=world.memory.known_along(cameras, options.replace_erosion))

    def _bent(self, world: _World, cameras: CameraPath, overlap: int, first: int) -> CameraPath:
        """The window's cameras in a closed loop: as found in the known frames, then back to the request."""
        options = self.options
        ahead = bend_back(
            cameras.world_to_cam[overlap - 1 :],
            world.found[first - 1],
            options.max_correction_deg,
            options.max_correction_share,
        )
        return replace(cameras, world_to_cam=torch.cat([world.found[first - overlap : first - 1], ahead]))

    def _take(self, world: _World, record: CosmosRecord, requested: CameraPath) -> None:
        """Add a finished chunk to the world."""
        world.frames = torch.cat([world.frames, record.frames])
        world.found = torch.cat([world.found, record.recovered])
        numbers = record.depth_frames.tolist()
        world.depth_m |= dict(zip(numbers, record.depth_m, strict=True))
        world.depth_limits = (float(record.depth_limits[0]), float(record.depth_limits[1]))
        if world.memory is not None:
            cameras = replace(requested[numbers], world_to_cam=world.found[numbers])
            world.memory.add(numbers, world.frames[numbers], record.depth_m, cameras)

    def _followed(self, world: _World, request: RolloutRequest) -> Followed:
        requested = request.camera_path
        found = replace(requested, world_to_cam=world.found)
        depth = torch.zeros(world.frames.shape[:3])
        for frame, known in world.depth_m.items():
            depth[frame] = known
        clip = VideoClip(
            frames=world.frames,
            cameras=found if self.options.mode == "image" else requested,
            fps=self.options.fps,
            depth_m=depth,
        )
        return Followed(clip=clip, found=found)
