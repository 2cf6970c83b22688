"""A folder of Cosmos 3 weights: what it can do, and whether it fits, before anything large is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lyra_core.config.cosmos import CosmosOptions
from lyra_core.errors import OutOfMemoryError, RecipeError, WeightsError
from lyra_core.extras import require
from lyra_core.weights.shards import list_safetensors

BYTES = {"bfloat16": 2, "float32": 4}
QUANTISED = ("I8", "U8", "F8_E4M3", "F8_E5M2")
"""Types of stored tensors that the library would read without their scales, as the published fp8 forms have them."""
WORK_BYTES = 8 << 30
"""What sampling takes on top of the weights: 4.7 GiB measured for 61 frames at 480x832 (docs/log.md), and room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the configuration files of a folder tell.

    Attributes:
        folder: with transformer, vae, text_tokenizer and scheduler.
        has_actions: the network reads actions.
        levels: noise levels of a few-step student; empty for others.
        transformer_parameters: numbers in the network's files.
        vae_parameters: numbers in the autoencoder's.
    """

    folder: Path
    has_actions: bool
    levels: tuple[float, ...]
    transformer_parameters: int
    vae_parameters: int

    @property
    def is_distilled(self) -> bool:
        """Whether it is a few-step student."""
        return bool(self.levels)


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a folder of weights holds, from its small files and the heads of the large ones.

    Raises:
        WeightsError: files are missing, truncated or malformed, or hold numbers of another type.
    """
    transformer = read_json(folder / "transformer" / "config.json")
    for part in ("vae", "scheduler"):
        read_json(folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json"))
    index = folder / "modular_model_index.json"
    modular = read_json(index) if index.is_file() else {}
    levels: object = modular.get("distilled_sigmas") or ()
    if modular.get("is_distilled") and not levels:
        raise WeightsError(f"{index} says is_distilled and names no distilled_sigmas; fetch the weights again")
    if not isinstance(levels, list | tuple):
        raise WeightsError(f"{index}: distilled_sigmas should be a list of numbers, found {levels!r}")
    return Checkpoint(
        folder=folder,
        has_actions=bool(transformer.get("action_gen")),
        levels=tuple(float(level) for level in levels),
        transformer_parameters=_parameters(folder / "transformer"),
        vae_parameters=_parameters(folder / "vae"),
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
        checkpoint.transformer_parameters * BYTES[options.transformer_dtype]
        + checkpoint.vae_parameters * BYTES[options.vae_dtype]
        + WORK_BYTES
    )
    if needed > free_bytes:
        raise OutOfMemoryError(
            f"{checkpoint.folder.name} needs about {needed / 2**30:.0f} GiB of GPU memory at "
            f"{options.transformer_dtype}, {free_bytes / 2**30:.0f} GiB are free: take a larger GPU, or the "
            "smaller weights of cosmos3-nano"
        )


def read_json(path: Path) -> Mapping[str, object]:
    """A configuration file of a folder of weights.

    Raises:
        WeightsError: missing, or no JSON object.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{path} should hold a configuration of Cosmos 3, found {(error.strerror or str(error)).lower()}; "
            "fetch and convert the weights again"
        ) from error
    except ValueError as error:
        raise WeightsError(
            f"{path} should hold a configuration of Cosmos 3, found no JSON ({error}); fetch and convert the weights "
            "again"
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} should hold a JSON object, found {type(found).__name__}; fetch it again")
    return found


def _parameters(folder: Path) -> int:
    """Numbers in the safetensors files of a component, all of which must be there."""
    files = set(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        places = read_json(index).get("weight_map")
        files |= {folder / str(name) for name in (places.values() if isinstance(places, dict) else ())}
    if not files:
        raise WeightsError(f"{folder} should hold safetensors files, found none; fetch and convert the weights again")
    tensors = [tensor for path in sorted(files) for tensor in list_safetensors(path)]
    small = next((tensor for tensor in tensors if tensor.dtype in QUANTISED), None)
    if small is not None:
        raise WeightsError(
            f"{folder} should hold bfloat16 or float32, found {small.dtype} ({small.name}); fetch the weights of the "
            "repository's main branch"
        )
    return sum(math.prod(tensor.shape) for tensor in tensors)
