"""A folder of Cosmos 3 weights: what it can do, whether it fits, and its networks, without any access to a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lyra_core.config.cosmos import CosmosOptions
from lyra_core.errors import OutOfMemoryError, RecipeError, WeightsError
from lyra_core.extras import require

BYTES = {"bfloat16": 2, "float32": 4}
STORED_BYTES = 2
"""A parameter in the published files, which are bfloat16."""
WORK_BYTES = 8 << 30
"""What sampling takes on top of the weights: 4.7 GiB measured for 61 frames at 480x832 (docs/log.md), and room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the configuration files of a folder tell.

    Attributes:
        folder: with transformer, vae, text_tokenizer and scheduler.
        has_actions: the network reads actions.
        levels: noise levels of a few-step student; empty for others.
        transformer_bytes: size of the network's files.
        vae_bytes: size of the autoencoder's.
    """

    folder: Path
    has_actions: bool
    levels: tuple[float, ...]
    transformer_bytes: int
    vae_bytes: int

    @property
    def is_distilled(self) -> bool:
        """Whether it is a few-step student."""
        return bool(self.levels)


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a folder of weights holds, from its small files.

    Raises:
        WeightsError: files are missing or malformed.
    """
    transformer = _read_json(folder / "transformer" / "config.json")
    for part in ("vae", "scheduler"):
        _read_json(folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json"))
    index = folder / "modular_model_index.json"
    modular = _read_json(index) if index.is_file() else {}
    levels: object = modular.get("distilled_sigmas") or ()
    if modular.get("is_distilled") and not levels:
        raise WeightsError(f"{index} says is_distilled and names no distilled_sigmas; fetch the weights again")
    if not isinstance(levels, list | tuple):
        raise WeightsError(f"{index}: distilled_sigmas should be a list of numbers, found {levels!r}")
    return Checkpoint(
        folder=folder,
        has_actions=bool(transformer.get("action_gen")),
        levels=tuple(float(level) for level in levels),
        transformer_bytes=_size(folder / "transformer"),
        vae_bytes=_size(folder / "vae"),
    )


def require_fitting(checkpoint: Checkpoint, options: CosmosOptions) -> None:
    """Check that weights and choices belong together, before anything large is read.

    Raises:
        RecipeError: cameras asked of weights that take none, or of a student; steps other than a student's.
    """
    name = checkpoint.folder.name
    if checkpoint.is_distilled and options.mode != "image":
        raise RecipeError(
            f"{name} holds a few-step student, which ignores cameras: mode={options.mode!r} needs the undistilled "
            "weights (recipe cosmos3-nano); with these take recipe cosmos3-super-i2v-4step"
        )
    if options.mode == "camera" and not checkpoint.has_actions:
        raise RecipeError(
            f"{name} has no camera actions (action_gen is off in transformer/config.json): take weights of "
            "cosmos3-nano or cosmos3-super, or recipe cosmos3-super-i2v, whose camera is moved by words"
        )
    if not checkpoint.is_distilled:
        return
    if options.num_steps != len(checkpoint.levels) or options.guidance_scale != 1.0:
        raise RecipeError(
            f"{name} samples at its own {len(checkpoint.levels)} levels without guidance, found "
            f"num_steps={options.num_steps} and guidance_scale={options.guidance_scale:g}; set "
            f"cosmos.num_steps={len(checkpoint.levels)} and cosmos.guidance_scale=1"
        )


def require_library(wanted: str) -> None:
    """Check the installed library against the one that the worlds' ids name.

    Raises:
        MissingExtraError: a package of the extra `cosmos` is not installed.
        RecipeError: another version.
    """
    for package in ("diffusers", "accelerate", "transformers"):
        require(package, "the model cosmos3", extra="cosmos")
    found = f"diffusers {version('diffusers')}"
    if found != wanted:
        raise RecipeError(
            f"cosmos.library: the ids of these worlds say {wanted!r}, found {found!r} installed; install that version, "
            f"or set cosmos.library={found!r} for worlds of other ids"
        )


def require_memory(checkpoint: Checkpoint, options: CosmosOptions, free_bytes: int) -> None:
    """Check that weights and work fit into a GPU.

    Raises:
        OutOfMemoryError: the message says how much is needed and what to do.
    """
    needed = (
        checkpoint.transformer_bytes * BYTES[options.transformer_dtype] // STORED_BYTES
        + checkpoint.vae_bytes * BYTES[options.vae_dtype] // STORED_BYTES
        + WORK_BYTES
    )
    if needed > free_bytes:
        raise OutOfMemoryError(
            f"{checkpoint.folder.name} needs about {needed / 2**30:.0f} GiB of GPU memory at "
            f"{options.transformer_dtype}, {free_bytes / 2**30:.0f} GiB are free: take a larger GPU, or the "
            "smaller weights of cosmos3-nano"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The parts of a pipeline, each a thing of the library."""

    transformer: Any
    vae: Any
    text_tokenizer: Any
    scheduler: Any

    @property
    def named(self) -> dict[str, Any]:
        """By the names that pipelines give them."""
        return {name: getattr(self, name) for name in ("transformer", "vae", "text_tokenizer", "scheduler")}


def load_components(checkpoint: Checkpoint, options: CosmosOptions, device: torch.device | str) -> Components:
    """Networks, tokenizer and schedule, on a device.

    Raises:
        MissingExtraError: a package of the extra `cosmos` is not installed.
        RecipeError: weights and choices that do not belong together, or another version of the library.
        OutOfMemoryError: too little GPU memory.
        WeightsError: files that the library cannot read.
    """
    require_library(options.library)
    require_fitting(checkpoint, options)
    where = torch.device(device)
    if where.type == "cuda":
        require_memory(checkpoint, options, torch.cuda.mem_get_info(where)[0])
    require("diffusers", "the model cosmos3")
    require("transformers", "the model cosmos3", extra="cosmos")
    from diffusers import AutoencoderKLWan, Cosmos3OmniTransformer
    from transformers import AutoTokenizer

    folder = checkpoint.folder
    dtypes = {name: getattr(torch, name) for name in BYTES}
    try:
        # Loaded with its dtype and not cast afterwards: the embedding of time stays float32.
        transformer = Cosmos3OmniTransformer.from_pretrained(
            folder / "transformer", torch_dtype=dtypes[options.transformer_dtype], local_files_only=True
        )
        vae = AutoencoderKLWan.from_pretrained(
            folder / "vae", torch_dtype=dtypes[options.vae_dtype], local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder / "text_tokenizer"), local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} cannot be read as Cosmos 3 weights: {error}") from error
    return Components(
        transformer=transformer.to(where).eval().requires_grad_(False),
        vae=vae.to(where).eval().requires_grad_(False),
        text_tokenizer=tokenizer,
        scheduler=build_scheduler(checkpoint, options),
    )


def build_scheduler(checkpoint: Checkpoint, options: CosmosOptions) -> Any:
    """The schedule of noise levels, from the folder's file and the choices.

    The published file spaces levels after Karras, which makes a shift void: both are set together.

    Raises:
        WeightsError: a file of another kind of schedule.
    """
    require("diffusers", "the model cosmos3")
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    path = checkpoint.folder / "scheduler" / "scheduler_config.json"
    config = dict(_read_json(path))
    if checkpoint.is_distilled:
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    if options.scheduler == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=options.flow_shift)
    if config.get("prediction_type") != "flow_prediction" or not config.get("use_flow_sigmas"):
        raise WeightsError(
            f"{path} should describe flow prediction with flow sigmas, found prediction_type="
            f"{config.get('prediction_type')!r} and use_flow_sigmas={config.get('use_flow_sigmas')!r}; fetch it again"
        )
    changes = {"use_karras_sigmas": options.karras_sigmas, "flow_shift": options.flow_shift}
    return UniPCMultistepScheduler.from_config({**config, **changes})


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} should hold a configuration of Cosmos 3: {error}; fetch and convert the weights again"
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} should hold a JSON object, found {type(found).__name__}")
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
