"""The released Lyra 2 model: networks from a folder of converted weights, choices as released unless told otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from lyra_core.configure import configured
from lyra_core.errors import RecipeError
from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
from lyra_core.gaussians.lifters import EstimatedDepth, GaussianHead, Lifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig
from lyra_core.gaussians.refine import RefineConfig
from lyra_core.generative.model import GenerativeModel, Parts
from lyra_core.generative.networks import (
    load_caption_encoder,
    load_dit,
    load_frame_encoder,
    load_negative_prompt,
    load_nested_depth,
    load_vae,
    parse_lora,
)
from lyra_core.generative.reconstructor import Reconstructor
from lyra_core.video.captions import Captioner, VisionLanguageCaptioner
from lyra_core.video.rollout import RolloutModels
from lyra_core.video.rollout_config import FAITHFUL
from lyra_core.weights.bundle import LYRA2_PARTS, find_sets, lora_parts, set_digests

Options = Mapping[str, object]


def load_lyra2(
    *,
    device: str = "cpu",
    weights: str | Path | None = None,
    video: Options | None = None,
    reconstruction: Options | None = None,
) -> GenerativeModel:
    """The released model, from a folder of converted sets (docs/weights.md).

    Args:
        device: where it computes; bfloat16 on CUDA (about 55 GB of weights), float32 on the CPU.
        weights: the folder; None is `weights` in the current folder.
        video: fields of lyra_core.video.rollout_config.RolloutConfig that differ from the released choices, besides
            `loras` (converted sets with strengths, "lora-dmd:1.0") and `captioner` ("manifest", or the folder of a
            vision-language model).
        reconstruction: fields of lyra_core.gaussians.reconstruct.ReconstructionConfig that differ from its defaults,
            besides `lifter` ("head" or "depth"), `is_refined` and `refine` (fields of RefineConfig).

    Raises:
        WeightsError: sets are missing; the message says how to bring them.
        StateDictError: a set does not fit its network.
        RecipeError: an unknown field, or choices that do not belong together.
    """
    video = dict(video or {})
    loras = [str(lora) for lora in _sequence(video.pop("loras", ()))]
    captioner = _captioner(str(video.pop("captioner", "manifest")), device)
    config = configured(FAITHFUL, video, "video.")
    homes = find_sets(weights, (*LYRA2_PARTS, *lora_parts(loras)))
    dit = load_dit(homes["dit"], device, [(homes[lora], parse_lora(lora)[1]) for lora in loras])
    # The longest side of a frame is what the reference implementation hands to the depth network.
    estimator = DepthAnythingEstimator(load_nested_depth(homes["reconstruction"], device), process_size=None)
    models = RolloutModels(
        dit=dit,
        vae=load_vae(homes["vae"], device),
        depth=estimator,
        text=load_caption_encoder(homes["text"], homes["tokenizer"], device),
        image=load_frame_encoder(homes["image"], device),
        negative_text=load_negative_prompt(homes["negative prompt"], dit.config.text_dim),
    )
    digests = set_digests(homes)
    reconstructor = build_reconstructor(estimator, digests[0][:12], reconstruction or {}, device)
    parts = Parts(models=models, config=config, reconstructor=reconstructor, captioner=captioner)
    return GenerativeModel("lyra2", joined_digest(digests), parts)


def build_reconstructor(
    estimator: DepthAnythingEstimator, name: str, options: Options, device: str, lifter: str = "head"
) -> Reconstructor:
    """A reconstructor from a depth network and plain choices.

    Args:
        estimator: the network, on its device.
        name: identifies its weights.
        options: as `reconstruction` of load_lyra2.
        device: where a refinement runs.
        lifter: used where the options name none.

    Raises:
        RecipeError: an unknown lifter or field, or a refinement without CUDA.
    """
    options = dict(options)
    kind = options.pop("lifter", lifter)
    is_refined = bool(options.pop("is_refined", False))
    refine = options.pop("refine", {})
    if kind not in ("head", "depth"):
        raise RecipeError(f'reconstruction.lifter should be "head" or "depth", found {kind!r}')
    chosen: Lifter = (
        GaussianHead(estimator, name=name)
        if kind == "head"
        else EstimatedDepth(estimator, name=name, needs_baseline=False)
    )
    return Reconstructor(
        lifter=chosen,
        config=configured(ReconstructionConfig(), options, "reconstruction."),
        refine=configured(RefineConfig(), _mapping(refine), "reconstruction.refine.") if is_refined else None,
        device=torch.device(device),
    )


def joined_digest(digests: tuple[str, ...]) -> str:
    """One digest for several sets, in their order, hex."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _captioner(choice: str, device: str) -> Captioner | None:
    return None if choice == "manifest" else VisionLanguageCaptioner(choice, device=device)


def _sequence(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _mapping(value: object) -> Options:
    if not isinstance(value, Mapping):
        raise RecipeError(f"reconstruction.refine should hold fields, found {value!r}")
    return value
