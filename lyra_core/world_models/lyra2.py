"""The released Lyra 2 model: networks from a folder of converted weights, choices as released unless told otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from lyra_core.config.rollout import REFERENCE
from lyra_core.configure import configured
from lyra_core.errors import RecipeError
from lyra_core.extras import require
from lyra_core.gaussians.depth_anything.estimator import DepthAnythingEstimator
from lyra_core.gaussians.lifters import HeadLifter
from lyra_core.models import LYRA2_PARTS
from lyra_core.video.dit.network import DiT
from lyra_core.video.dit.speed import PROFILES, apply_speed, stream_blocks
from lyra_core.video.dit.team import lead
from lyra_core.video.rollout import RolloutModels
from lyra_core.weights.bundle import find_sets, lora_parts, set_digests
from lyra_core.weights.manifest import manifest_digest
from lyra_core.weights.narrow import fitting_set
from lyra_core.world_models.generative import GenerativeModel, Parts
from lyra_core.world_models.networks import (
    load_caption_encoder,
    load_dit,
    load_frame_encoder,
    load_negative_prompt,
    load_nested_depth,
    load_vae,
    parse_lora,
)
from lyra_core.world_models.placement import Placement, choose_placement, home_of
from lyra_core.world_models.presets import Options, build_reconstructor, joined_digest, take_captioner

LYRA2_SIZE = (832, 480)
LYRA2_MIN_SIDE = 32
"""Two latents of each patch of the video network, pixels."""


def load_lyra2(
    *,
    device: str = "cpu",
    weights: str | Path | None = None,
    video: Options | None = None,
    reconstruction: Options | None = None,
    num_devices: int = 1,
) -> GenerativeModel:
    """The released model, from a folder of converted sets (docs/weights.md).

    Args:
        device: where it computes; bfloat16 on CUDA (about 55 GB of weights), float32 on the CPU.
        weights: the folder; None is `weights` in the current folder.
        video: fields of lyra_core.config.video.RolloutOptions that differ from the released choices, besides
            `loras` (converted sets with strengths, "lora-dmd:1.0") and `captioner` ("manifest", or the folder of a
            vision-language model) and `placement` (lyra_core.world_models.placement).
        reconstruction: fields of lyra_core.config.reconstruction.ReconstructionOptions that differ from its
            defaults.
        num_devices: GPUs whose video networks make each chunk together; `device` is the first, and has all else.

    Raises:
        MissingExtraError: transformers is not installed.
        WeightsError: sets are missing; the message says how to bring them.
        StateDictError: a set does not fit its network.
        RecipeError: an unknown field, or choices that do not belong together.
    """
    require("transformers", "the model lyra2")  # before gigabytes are read
    choices, captioner = take_captioner(video or {}, device)
    loras = [str(lora) for lora in _sequence(choices.pop("loras", ()))]
    if choices.pop("super_resolution", "none") != "none":
        raise RecipeError("video.super_resolution: lyra2 has none; leave it at none")
    placement = choose_placement(str(choices.pop("placement", "auto")), device, str(choices.get("speed", "exact")))
    config = configured(REFERENCE, choices, "video.")
    homes = find_sets(weights, (*LYRA2_PARTS, *lora_parts(loras)))
    strengths = [(homes[lora], parse_lora(lora)[1]) for lora in loras]
    home = fitting_set(homes["dit"], config.speed, has_loras=bool(loras))
    make = partial(load_video_network, home, strengths, config.speed, placement)
    dit = make(device) if num_devices == 1 else lead(make, several_devices(device, num_devices))
    vae = load_vae(homes["vae"], device)
    if torch.device(device).type == "cuda":
        vae.put_channels_last()
    # The longest side of a frame is what the reference implementation hands to the depth network.
    depth = load_nested_depth(homes["reconstruction"], device)
    estimator = DepthAnythingEstimator(depth, process_size=None, home=home_of(depth, placement, device))
    text = load_caption_encoder(homes["text"], homes["tokenizer"], device)
    image = load_frame_encoder(homes["image"], device)
    models = RolloutModels(
        dit=dit,
        vae=vae,
        depth=estimator,
        text=replace(text, home=home_of(text.network, placement, device)),
        image=replace(image, home=home_of(image.network, placement, device)),
        negative_text=load_negative_prompt(homes["negative prompt"], dit.config.text_dim),
    )
    name = manifest_digest(homes["reconstruction"])[:12]
    head = HeadLifter(estimator, name=name)
    reconstructor = build_reconstructor(estimator, head, name, reconstruction or {}, device)
    parts = Parts(
        models=models,
        config=config,
        reconstructor=reconstructor,
        size=LYRA2_SIZE,
        min_side=LYRA2_MIN_SIDE,
        is_metric=True,
        captioner=captioner,
    )
    return GenerativeModel("lyra2", joined_digest(set_digests(homes)), parts)


def load_video_network(
    home: Path, loras: list[tuple[Path, float]], speed: str, placement: Placement, device: str
) -> DiT:
    """The video network on one device, at the speed and with its weights where they are wanted."""
    dit = load_dit(home, device, loras, blocks_on_host=placement == "streamed")
    apply_speed(dit, PROFILES[speed])
    if placement == "streamed":
        stream_blocks(dit)
    return dit


def several_devices(device: str, count: int) -> list[str]:
    """Names of the first `count` devices of a kind.

    Raises:
        RecipeError: fewer than that are visible.
    """
    if torch.device(device).type != "cuda":
        return [device] * count
    if torch.cuda.device_count() < count:
        raise RecipeError(
            f"{count} GPUs were asked to make one world together, {torch.cuda.device_count()} are visible"
        )
    return [f"cuda:{index}" for index in range(count)]


def _sequence(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
