"""Lyra mini: the embedded model, small enough for a laptop, through the same rollout and reconstruction as Lyra 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lyra_core.configure import configured
from lyra_core.errors import RecipeError
from lyra_core.mini.depth_estimator import MiniDepthEstimator, MiniHead
from lyra_core.mini.encoders import FRAME_TOKEN_PX
from lyra_core.mini.enlarge import Enlarger
from lyra_core.mini.files import load_mini, load_mini_depth, load_super_resolution
from lyra_core.mini.manifest import MINI_FOLDER, super_resolution_digest
from lyra_core.precision import Precision, choose_dtype
from lyra_core.video.dit.speed import PROFILES, apply_speed
from lyra_core.video.rollout import RolloutModels
from lyra_core.world_models.generative import GenerativeModel, Parts
from lyra_core.world_models.presets import Options, build_reconstructor, take_captioner
from lyra_core.world_models.reconstructor import Reconstructor

DEPTH_VIEWS = 10
"""Frames whose depth is found together: all of a chunk's, which would else be looked at in two overlapping windows."""

MINI_SIZE = (224, 128)
MINI_PROMPT = "a place"
"""As in its recipe; captions hardly steer it."""

MINI_RECONSTRUCTION: Options = {"lifter": "depth", "anchor_views": 8}
"""One splat a pixel beats the network's own Gaussians in every measure taken (docs/log.md), and nothing stays open."""


def mini_reconstructor(
    estimator: MiniDepthEstimator, name: str, options: Options | None = None, device: str = "cpu"
) -> Reconstructor:
    """How the embedded model makes Gaussians of its videos.

    Args:
        estimator: its depth network.
        name: identifies the weights.
        options: as for lyra_core.world_models.presets.build_reconstructor; what is not given is as in
            MINI_RECONSTRUCTION.
        device: where a refinement runs.
    """
    chosen = {**MINI_RECONSTRUCTION, **(options or {})}
    return build_reconstructor(estimator, MiniHead(estimator, name=name), name, chosen, device)


def load_mini_model(
    *,
    device: str = "cpu",
    weights: str | Path | None = None,
    video: Options | None = None,
    reconstruction: Options | None = None,
    precision: Precision = "auto",
) -> GenerativeModel:
    """The embedded model.

    Args:
        device: where it computes.
        weights: a folder of packed trainings; None is the one of the package.
        video: fields of lyra_core.config.video.RolloutOptions that differ from MINI_VIDEO, besides
            `captioner` ("manifest", or the folder of a vision-language model) and `super_resolution` ("none",
            "transfer" or "network").
        reconstruction: as for mini_reconstructor.
        precision: of the video network, see lyra_core.precision; no part of a world's id, as the device is none.

    Raises:
        WeightsError: files that are missing, changed or do not fit.
        RecipeError: an unknown field, or choices that do not belong together.
    """
    choices, captioner = take_captioner(video or {}, device)
    if choices.pop("loras", ()):
        raise RecipeError("video.loras: mini takes no LoRA; train weights of your own instead (docs/training.md)")
    choices.pop("placement", None)  # so small a model never waits in host memory
    folder = MINI_FOLDER if weights is None else Path(weights)
    dtype = choose_dtype(precision, device)
    enlarger = build_enlarger(str(choices.pop("super_resolution", "none")), folder, device, dtype)
    networks = load_mini(folder, device, dtype)
    config = configured(networks.config, choices, "video.")
    # So small a network computes a chunk sooner than a compiler compiles it.
    apply_speed(networks.dit, replace(PROFILES[config.speed], is_compiled=False))
    estimator = MiniDepthEstimator(load_mini_depth(folder, device), views=DEPTH_VIEWS)
    models = RolloutModels(
        dit=networks.dit, vae=networks.vae, depth=estimator, text=networks.text, image=networks.image
    )
    name = networks.digest[:12]
    return GenerativeModel(
        "mini",
        networks.digest,
        Parts(
            models=models,
            config=config,
            reconstructor=mini_reconstructor(estimator, name, reconstruction, device),
            captioner=captioner,
            size=MINI_SIZE,
            min_side=FRAME_TOKEN_PX,
            is_metric=False,  # it learnt metres from drawn scenes, and photographs are none
            prompt=MINI_PROMPT,
            enlarger=enlarger,
        ),
    )


def build_enlarger(kind: str, folder: Path, device: str | torch.device, dtype: torch.dtype) -> Enlarger | None:
    """Super-resolution as a recipe names it.

    Args:
        kind: "none", "transfer" (high frequencies of the photograph, nothing learned) or "network".
        folder: of the weights.
        device: where it computes.
        dtype: in which.

    Raises:
        RecipeError: another word.
        WeightsError: weights that are missing, changed or do not fit.
    """
    if kind == "none":
        return None
    if kind == "transfer":
        return Enlarger(None, name=kind)
    if kind != "network":
        raise RecipeError(f'video.super_resolution should be "none", "transfer" or "network", found {kind!r}')
    return Enlarger(load_super_resolution(folder, device, dtype), name=super_resolution_digest(folder)[:12])
