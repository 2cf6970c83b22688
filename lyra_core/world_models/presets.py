"""Plain choices, as recipes hold them, to the parts of a generative model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from lyra_core.configure import configured
from lyra_core.depth import DepthEstimator
from lyra_core.errors import RecipeError
from lyra_core.gaussians.lifters import DepthLifter, Lifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig
from lyra_core.gaussians.refine import RefineConfig
from lyra_core.video.captions import Captioner, VisionLanguageCaptioner
from lyra_core.world_models.reconstructor import Reconstructor

Options = Mapping[str, object]


def build_reconstructor(
    estimator: DepthEstimator, head: Lifter, name: str, options: Options, device: str
) -> Reconstructor:
    """A reconstructor from a depth network and plain choices.

    Args:
        estimator: the network, on its device, for "depth".
        head: lifts with the network's own Gaussians, for "head".
        name: identifies its weights.
        options: fields of ReconstructionConfig that differ from its defaults, besides `lifter` ("head" or "depth"),
            `is_refined` and `refine` (fields of RefineConfig).
        device: where a refinement runs.

    Raises:
        RecipeError: an unknown lifter or field, or a refinement without CUDA.
    """
    options = dict(options)
    kind = options.pop("lifter", "head")
    is_refined = bool(options.pop("is_refined", False))
    refine = options.pop("refine", {})
    if kind not in ("head", "depth"):
        raise RecipeError(f'reconstruction.lifter should be "head" or "depth", found {kind!r}')
    chosen = head if kind == "head" else DepthLifter(estimator, name=name, needs_baseline=False)
    return Reconstructor(
        lifter=chosen,
        config=configured(ReconstructionConfig(), options, "reconstruction."),
        refine=configured(RefineConfig(), _mapping(refine), "reconstruction.refine.") if is_refined else None,
        device=torch.device(device),
    )


def take_captioner(video: Options, device: str) -> tuple[dict[str, object], Captioner | None]:
    """The choices of a rollout without `captioner`, and the captioner they name.

    Args:
        video: fields of RolloutOptions, and perhaps `captioner`: "manifest" (captions come with the request) or the
            folder of a vision-language model.
        device: where that model computes.
    """
    choices = dict(video)
    folder = str(choices.pop("captioner", "manifest"))
    return choices, None if folder == "manifest" else VisionLanguageCaptioner(folder, device=device)


def joined_digest(digests: tuple[str, ...]) -> str:
    """One digest for several sets, in their order, hex."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _mapping(value: object) -> Options:
    if not isinstance(value, Mapping):
        raise RecipeError(f"reconstruction.refine should hold fields, found {value!r}")
    return value
