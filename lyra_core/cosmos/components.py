"""The networks, tokenizer and schedule of a folder of Cosmos 3 weights, loaded without any access to a network.

The library's loaders say in a log what they could not find, fill it with random numbers and go on; here that is an
error. They read pickles and run code that lies in a folder where they are not told otherwise; here they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lyra_core.config.cosmos import CosmosOptions
from lyra_core.cosmos.checkpoint import (
    BYTES,
    Checkpoint,
    read_json,
    require_fitting,
    require_library,
    require_memory,
)
from lyra_core.errors import LyraWarning, WeightsError
from lyra_core.extras import require

VISION_MARK = "<|vision_start|>"


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
        WeightsError: files that the library cannot read, tensors that are missing, too many, or not finite.
    """
    require_library(options.library)
    require_fitting(checkpoint, options)
    where = torch.device(device)
    if where.type == "cuda":
        require_memory(checkpoint, options, torch.cuda.mem_get_info(where)[0])
    require("diffusers", "the model cosmos3")
    from diffusers import AutoencoderKLWan, Cosmos3OmniTransformer

    folder = checkpoint.folder
    scheduler, tokenizer = build_scheduler(checkpoint, options), load_tokenizer(folder / "text_tokenizer")
    dtypes = {name: getattr(torch, name) for name in BYTES}
    return Components(
        transformer=_network(Cosmos3OmniTransformer, folder / "transformer", dtypes[options.transformer_dtype], where),
        vae=_network(AutoencoderKLWan, folder / "vae", dtypes[options.vae_dtype], where),
        text_tokenizer=tokenizer,
        scheduler=scheduler,
    )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, with the conversation form and the mark that the pipelines ask for.

    Raises:
        WeightsError: it cannot be read, wants code of its own, or lacks one of them.
    """
    require("transformers", "the model cosmos3", extra="cosmos")
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise WeightsError(f"{folder} should hold a tokenizer, found no folder; fetch and convert the weights again")
    with _reading(folder):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    lacking = [] if tokenizer.chat_template else ["a chat template"]
    if VISION_MARK not in tokenizer.get_vocab():
        lacking.append(f"the token {VISION_MARK}")
    if lacking:
        raise WeightsError(
            f"{folder} should hold the tokenizer of Cosmos 3, found one without {' and '.join(lacking)}; "
            "fetch and convert the weights again"
        )
    return tokenizer


def build_scheduler(checkpoint: Checkpoint, options: CosmosOptions) -> Any:
    """The schedule of noise levels, from the folder's file and the choices.

    The published file spaces levels after Karras, which makes a shift void: both are set together.

    Raises:
        WeightsError: a file of another kind of schedule.
    """
    require("diffusers", "the model cosmos3")
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    path = checkpoint.folder / "scheduler" / "scheduler_config.json"
    config = dict(read_json(path))
    if checkpoint.is_distilled:
        if config.get("_class_name") != FlowMatchEulerDiscreteScheduler.__name__:
            raise WeightsError(
                f"{path} should describe a student's schedule ({FlowMatchEulerDiscreteScheduler.__name__}), found "
                f"{config.get('_class_name')!r}; fetch it again"
            )
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


def _network(kind: Any, folder: Path, dtype: torch.dtype, where: torch.device) -> Any:
    """A network of the library with exactly the tensors of a folder."""
    with _reading(folder):
        # Loaded with its dtype and not cast afterwards: the embedding of time stays float32.
        network, told = kind.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    missing, unused = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if missing:
        raise WeightsError(
            f"{folder} should hold every tensor of {kind.__name__}, missing: {_few(missing)}; "
            "fetch and convert the weights again"
        )
    if unused:
        warnings.warn(
            f"{folder} holds tensors that {kind.__name__} does not have, and that are left out: {_few(unused)}",
            LyraWarning,
            stacklevel=2,
        )
    network = network.to(where).eval().requires_grad_(False)
    broken = next((name for name, value in network.named_parameters() if not bool(torch.isfinite(value).all())), None)
    if broken is not None:
        raise WeightsError(
            f"{folder} should hold finite numbers, found NaN or infinity in {broken}; "
            "fetch and convert the weights again"
        )
    return network


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """While the libraries read a folder: whatever they raise is about its files, and they leave nothing changed."""
    require("diffusers", "the model cosmos3")
    from diffusers.utils import logging

    dtype, loudness = torch.get_default_dtype(), logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__).split(". ")[0][:300]
        raise WeightsError(
            f"{folder} cannot be read as a part of Cosmos 3 ({said}); check it with `lyra weights verify "
            f"{folder.parent}`, or fetch and convert the weights again"
        ) from error
    finally:
        logging.set_verbosity(loudness)
        torch.set_default_dtype(dtype)  # a loader that fails leaves its own behind
