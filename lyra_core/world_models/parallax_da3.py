"""Reconstruction without restricted weights: any model's video, lifted with Depth Anything 3 under Apache-2.0.

No permissively licensed network has a Gaussian head, so depth becomes splats of a pixel's footprint, which a refinement
on CUDA then fits to the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
from lyra_core.gaussians.lifters import HeadLifter
from lyra_core.models import APACHE_DEPTH_PARTS
from lyra_core.provenance import Provenance
from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip
from lyra_core.weights.bundle import find_sets, set_digests
from lyra_core.world_models.load import load_model
from lyra_core.world_models.networks import load_apache_depth
from lyra_core.world_models.presets import build_reconstructor, joined_digest
from lyra_core.world_models.protocol import WorldModel
from lyra_core.world_models.reconstructor import OnReport, Reconstructor

NATIVE_SIZE = (832, 480)


class LiftedModel:
    """A `WorldModel` (lyra_core.world_models.protocol): the video of one model, the reconstruction of another."""

    def __init__(self, name: str, weights_digest: str, video: WorldModel, reconstructor: Reconstructor) -> None:
        self.name = name
        self.weights_digest = weights_digest
        self.video = video
        self.reconstructor = reconstructor
        # The baseline's video has any size; the depth networks see more in a large one.
        self.native = replace(video.native, size=NATIVE_SIZE)

    @property
    def provenance(self) -> Provenance:
        """The video model's, with whose cameras the world's scale comes."""
        return self.video.provenance

    def generate(
        self,
        image: Seed | str | Path | Image.Image | np.ndarray | Tensor,
        camera_path: CameraPath | str,
        *,
        num_frames: int = 81,
        seed: int = 0,
        prompts: Sequence[str] | None = None,
        width: int | None = None,
        height: int | None = None,
        on_frame: Callable[[int, int], None] | None = None,
        chunk_ids: Sequence[str] | None = None,
        chunk_dir: str | Path | None = None,
    ) -> VideoClip:
        """The video model's clip; arguments and errors are its own, except that the native size is this model's."""
        width, height = self.native.chosen_size(width, height)
        return self.video.generate(
            image,
            camera_path,
            num_frames=num_frames,
            seed=seed,
            prompts=prompts,
            width=width,
            height=height,
            on_frame=on_frame,
            chunk_ids=chunk_ids,
            chunk_dir=chunk_dir,
        )

    def reconstruct(
        self, clip: VideoClip, *, chunk_dir: str | Path | None = None, on_report: OnReport | None = None
    ) -> Gaussians:
        """Gaussians in the frame of the clip's cameras, metres; errors as lyra_core.world_models.reconstructor."""
        folder = None if chunk_dir is None else Path(chunk_dir) / "gaussians"
        return self.reconstructor(clip, chunk_dir=folder, on_report=on_report)


def load_parallax_da3(
    *,
    device: str = "cpu",
    weights: str | Path | None = None,
    reconstruction: Mapping[str, object] | None = None,
) -> LiftedModel:
    """The baseline's video, lifted with Depth Anything 3 base nested with the metric network.

    Args:
        device: where the network and a refinement compute.
        weights: a folder of converted sets; None is `weights` in the current folder.
        reconstruction: as in lyra_core.world_models.presets.build_reconstructor; the lifter is "depth" unless said.

    Raises:
        WeightsError: sets are missing; the message says how to bring them.
        StateDictError: a set does not fit its network.
        RecipeError: an unknown field, or a refinement without CUDA.
    """
    homes = find_sets(weights, APACHE_DEPTH_PARTS)
    network = load_apache_depth(homes["depth"], homes["metric depth"], device)
    video = load_model("parallax", device=device)
    digest = joined_digest(set_digests(homes))
    options = {"lifter": "depth", **(reconstruction or {})}
    estimator, name = DepthAnythingEstimator(network), digest[:12]
    reconstructor = build_reconstructor(estimator, HeadLifter(estimator, name=name), name, options, device)
    return LiftedModel("parallax-da3", digest, video, reconstructor)
