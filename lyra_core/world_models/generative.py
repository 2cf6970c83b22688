"""The world model with learned networks: a photograph in, a video chunk by chunk, and its Gaussians.

    photograph --- depth estimator ---> seed depth, intrinsics ---> cameras of the requested path
         |                                   |                           |
         +-----------------------------------+------ rollout -----------+ ---> clip (chunks kept in chunk_dir/video)
                                                                                |
                                                         Reconstructor ---> Gaussians (chunk_dir/gaussians)

A model with super-resolution takes the photograph at full size, generates from it reduced, and enlarges the clip
(chunk_dir/enlarged).

`RolloutModel` is this order of things for any rollout. The released Lyra 2 and the model trained here are factories of
`GenerativeModel`: they differ in networks and choices only. Another video network brings a rollout of its own
(lyra_core.cosmos).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lyra_core.config.rollout import RolloutConfig, identity_text
from lyra_core.config.video import DepthConfig
from lyra_core.depth import DepthEstimate, DepthEstimator
from lyra_core.formats.image import open_image
from lyra_core.gaussians.reconstruct import ReadyToFuse
from lyra_core.geometry.seed_cameras import cameras_for_seed
from lyra_core.identity import ALGORITHM_VERSION, chain_start, chunk_ids
from lyra_core.mini.enlarge import Enlarger, reduced_image
from lyra_core.native import Native
from lyra_core.provenance import Provenance
from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip
from lyra_core.video.captions import Captioner, NoCaptions
from lyra_core.video.chunk_store import chain_inputs
from lyra_core.video.depth_cache import mask_depth
from lyra_core.video.dit.speed import real_speed
from lyra_core.video.rollout import Rollout, RolloutModels
from lyra_core.video.rollout_request import Photograph
from lyra_core.video.schedule import DISTILLED_ENTRIES
from lyra_core.world_models.reconstructor import OnReport, Reconstructor
from lyra_core.world_models.seed_estimate import estimate_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a generative model consists of.

    Attributes:
        models: networks of the rollout; its depth estimator also looks at the photograph.
        config: choices of the rollout.
        reconstructor: lifts clips.
        size: width and height the networks were trained at, pixels.
        min_side: the shortest side they can work at, pixels.
        prompt: the caption where the caller gives neither captions nor ids; None asks the captioner.
        is_metric: the depth network measures metres in photographs.
        captioner: finds captions where the caller gives none; None means no words, with a warning where the network
            reads them.
        enlarger: super-resolution of finished clips, or None.
    """

    models: RolloutModels
    config: RolloutConfig
    reconstructor: Reconstructor
    size: tuple[int, int]
    min_side: int
    is_metric: bool
    prompt: str | None = None
    captioner: Captioner | None = None
    enlarger: Enlarger | None = None


@runtime_checkable
class VideoRollout(Protocol):
    """Walks through a world chunk by chunk; lyra_core.video.rollout.Rollout.run says what is asked of it."""

    chunk_frames: int

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
        """The clip of a world along a camera path."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A rollout and all that surrounds it.

    Attributes:
        rollout: generates the video.
        native: what it was made for.
        depth: looks at the photograph.
        depth_config: how far that is believed.
        reconstructor: lifts clips.
        choices: every choice of the rollout, as part of ids.
        provenance: how it computes.
        captioner: as in Parts.
        reads_text: whether the network reads captions at all.
        enlarger: super-resolution of finished clips, or None.
    """

    rollout: VideoRollout
    native: Native
    depth: DepthEstimator
    depth_config: DepthConfig
    reconstructor: Reconstructor
    choices: str
    provenance: Provenance = field(default_factory=Provenance)
    captioner: Captioner | None = None
    reads_text: bool = True
    enlarger: Enlarger | None = None


class RolloutModel:
    """A `WorldModel` (lyra_core.world_models.protocol) around a rollout."""

    def __init__(self, name: str, weights_digest: str, walk: Walk) -> None:
        """`weights_digest` identifies all weights, 64 hex digits."""
        self.name = name
        self.weights_digest = weights_digest
        self.walk = walk
        self.native = walk.native

    @property
    def provenance(self) -> Provenance:
        """How it computes."""
        return self.walk.provenance

    def generate(
        self,
        image: Seed | str | Path | Image.Image | np.ndarray | Tensor,
        camera_path: CameraPath | str,
        *,
        num_frames: int | None = None,
        seed: int = 0,
        prompts: Sequence[str] | None = None,
        width: int | None = None,
        height: int | None = None,
        on_frame: Callable[[int, int], None] | None = None,
        chunk_ids: Sequence[str] | None = None,
        chunk_dir: str | Path | None = None,
        photographs: Sequence[Photograph] = (),
    ) -> VideoClip:
        """The photograph's world along a camera path whose first camera took it.

        Without chunk_ids they follow from the photograph, `seed`, the weights, and the cameras, captions and
        photographs of each chunk and those before, so that a longer path called with the same chunk_dir continues a
        shorter one.

        Args:
            image: a photograph, or a seed, whose size then counts; sides are multiples of the latent stride.
            camera_path: a preset's name, a trajectory file, or OpenCV cameras in metres of the seed's depth.
            num_frames: 1 + chunks (81, 161, ... for the released layout of Lyra 2); None is one chunk.
            seed: of the noise, where no chunk_ids are given.
            prompts: one caption, or one a chunk; None takes the model's own (`native.prompt`) or asks its captioner.
                Where chunk_ids are given, they stand for certain words already, and only the captioner is asked.
            width: of the frames, pixels; exchanged with the height for photographs of the other orientation. The
                native size without both.
            height: of the frames, pixels.
            on_frame: called after each chunk with (frames done, frames wanted).
            chunk_ids: one a chunk, from which noise derives.
            chunk_dir: keeps finished chunks and resumes from them.
            photographs: more pictures of the place with known cameras in the frame and metres of the path.

        Returns:
            The clip; depth where the memory has it, 0 elsewhere.

        Raises:
            SeedError: the image cannot be used.
            FrameError: a frame count other than 1 + chunks, or sides the networks cannot work at.
            CameraPathError: an unknown preset, fewer cameras than frames, or another number of ids than chunks.
            PromptError: no caption, or another number of them.
            DepthError: the estimator found nothing.
            StoreError: finished chunks cannot be read or written.
        """
        photo = image if isinstance(image, Seed) else open_image(image, *self.native.chosen_size(width, height))
        self.native.require_size(photo.image.shape[1], photo.image.shape[0])
        num_frames = 1 + self.native.chunk_frames if num_frames is None else num_frames
        self.native.require_frames(num_frames)
        if prompts is None and chunk_ids is None and self.native.prompt is not None and self.walk.captioner is None:
            prompts = [self.native.prompt]
        whole, extras = photo, tuple(photographs)
        enlarger = self.walk.enlarger
        if enlarger is not None:
            photo = reduced_seed(photo, enlarger.factor)
            extras = tuple(_reduced(extra, enlarger.factor) for extra in extras)
        folder = None if chunk_dir is None else Path(chunk_dir) / "video"
        estimate = estimate_seed(photo, self.walk.depth, self.weights_digest, folder)
        photo = _with_intrinsics(photo, estimate)
        cameras = cameras_for_seed(
            camera_path,
            num_frames=num_frames,
            intrinsics=photo.intrinsics,
            depth_m=estimate.depth_m[0],
            sky=estimate.sky[0],
        )
        ids = chunk_ids or self._chunk_ids(photo, seed, cameras, prompts, extras)
        clip = self.walk.rollout.run(
            photo,
            cameras,
            prompts or self._captioner(),
            ids,
            folder,
            photographs=extras,
            seed_depth_m=mask_depth(estimate, self.walk.depth_config)[0],
            on_frame=None if enlarger is not None else on_frame,
        )
        if enlarger is None:
            return clip
        folder = None if chunk_dir is None else Path(chunk_dir) / "enlarged"
        return enlarger.enlarge(whole.image, clip, folder, on_frame)

    def reconstruct(
        self, clip: VideoClip, *, chunk_dir: str | Path | None = None, on_report: OnReport | None = None
    ) -> Gaussians:
        """The clip's world as 3D Gaussians, in the frame of its cameras, from its frames and cameras.

        Args:
            clip: generated by any model.
            chunk_dir: keeps finished chunks and resumes from them.
            on_report: told how it went.

        Raises:
            as lyra_core.gaussians.reconstruct.reconstruct.
        """
        folder = None if chunk_dir is None else Path(chunk_dir) / "gaussians"
        return self.walk.reconstructor(clip, chunk_dir=folder, on_report=on_report)

    def lift(self, clip: VideoClip, chunk_dir: Path) -> ReadyToFuse | None:
        """What of `reconstruct` needs the networks; None where all of it needs their device."""
        return self.walk.reconstructor.lift(clip, chunk_dir / "gaussians")

    def fuse(self, ready: ReadyToFuse, clip: VideoClip, on_report: OnReport | None = None) -> Gaussians:
        """The rest of `reconstruct`, on the CPU."""
        return self.walk.reconstructor.fuse(ready, clip, on_report)

    def _captioner(self) -> Captioner:
        return self.walk.captioner or NoCaptions(network_reads_text=self.walk.reads_text)

    def _chunk_ids(
        self,
        photo: Seed,
        seed: int,
        cameras: CameraPath,
        prompts: Sequence[str] | None,
        photographs: Sequence[Photograph],
    ) -> tuple[str, ...]:
        """Ids of a world that no plan named: each chained to what its chunk is asked for."""
        step = self.walk.rollout.chunk_frames
        count = (len(cameras) - 1) // step
        # Presets are asked for by name, but here only their cameras are known; the photograph's pixels stand for all
        # that its depth depends on.
        fields: dict[str, object] = {"seed": seed, "model": self.name, "choices": self.walk.choices}
        if self.walk.enlarger is not None:
            fields["super_resolution"] = self.walk.enlarger.name
        start = chain_start(
            chain_inputs("", photo.image, photo.intrinsics), fields, (self.weights_digest,), ALGORITHM_VERSION, 0
        )
        asked = []
        for chunk in range(count):
            frames = slice(1 + chunk * step, 1 + (chunk + 1) * step)
            joining = [
                part
                for extra in photographs
                if extra.from_chunk == chunk
                for part in (extra.image, extra.camera.world_to_cam, extra.camera.intrinsics)
            ]
            asked.append(chain_inputs("", cameras.world_to_cam[frames], cameras.intrinsics[frames], *joining))
        captions = list(prompts or [""])
        per_chunk = captions * count if len(captions) == 1 else [*captions, *[""] * count][:count]
        return chunk_ids(start, asked, per_chunk)


class GenerativeModel(RolloutModel):
    """Lyra 2's rollout, built from parts."""

    def __init__(self, name: str, weights_digest: str, parts: Parts) -> None:
        """`weights_digest` identifies all weights, 64 hex digits.

        Raises:
            RecipeError: networks and choices that do not belong together.
        """
        config, models = parts.config, parts.models
        self.parts = parts
        self.rollout = Rollout(models, config)
        native = Native(
            size=parts.size,
            side_step=models.vae.config.spatial_factor,
            min_side=parts.min_side,
            chunk_frames=self.rollout.chunk_frames,
            prompt=parts.prompt,
        )
        if parts.enlarger is not None:
            native = native.enlarged(parts.enlarger.factor)
        walk = Walk(
            rollout=self.rollout,
            native=native,
            depth=models.depth,
            depth_config=config.depth,
            reconstructor=parts.reconstructor,
            choices=identity_text(config),
            captioner=parts.captioner,
            reads_text=models.text is not None,
            enlarger=parts.enlarger,
        )
        super().__init__(name, weights_digest, walk)

    @property
    def provenance(self) -> Provenance:
        """As the rollout's choices say."""
        config, models = self.parts.config, self.parts.models
        # The student was trained with guidance inside and runs without.
        scale = 1.0 if config.sampler == "distilled" or models.text is None else config.guidance_scale
        has_words = scale != 1.0 and models.negative_text is None
        return Provenance(
            precision=str(models.dit.dtype).removeprefix("torch."),
            speed=real_speed(models.dit),
            num_steps=len(DISTILLED_ENTRIES) if config.sampler == "distilled" else config.num_steps,
            guidance=scale,
            negative_prompt=config.negative_prompt if has_words else None,
            metric_scale_source="depth_model" if self.parts.is_metric else "relative",
        )


def reduced_seed(photo: Seed, factor: int) -> Seed:
    """The photograph with means of factor x factor pixels in place of pixels."""
    intrinsics = photo.intrinsics.clone()
    intrinsics[:2] /= factor
    return replace(photo, image=reduced_image(photo.image, factor), intrinsics=intrinsics)


def _reduced(photograph: Photograph, factor: int) -> Photograph:
    """The same of a photograph that is no seed."""
    image = reduced_image(photograph.image, factor)
    depth = photograph.depth_m
    return replace(
        photograph,
        image=image,
        camera=photograph.camera.resized(image.shape[0], image.shape[1]),
        depth_m=None if depth is None else depth[::factor, ::factor],
    )


def _with_intrinsics(photo: Seed, estimate: DepthEstimate) -> Seed:
    """The photograph with the estimator's focal length where neither the file nor the manifest told one."""
    if photo.focal_source != "default" or estimate.intrinsics is None:
        return photo
    intrinsics = estimate.intrinsics[0].to(torch.float64)
    # Estimators know no principal point; the crop does.
    intrinsics[:2, 2] = photo.intrinsics[:2, 2]
    return replace(photo, intrinsics=intrinsics, focal_source="estimated")
