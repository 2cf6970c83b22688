"""Builds what a fine-tuning run needs: the transformer as it is trained, and the frozen networks around it.

converted weights -- transformer: fixed, LoRA or wholly trained; a part of it in each process
                  -- autoencoder, image tower: frozen, whole in each process
                  -- text encoder: embeds all captions first, then goes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from lyra_core.configure import configured
from lyra_core.errors import ConfigError, StateDictError
from lyra_core.finetuning.caption_store import CaptionStore
from lyra_core.finetuning.fsdp import ShardConfig, fill, shard
from lyra_core.finetuning.lora import LoraConfig, add_lora, initialise_lora
from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.models import LYRA2_PARTS, RequiredSet
from lyra_core.training.data_parallel import Replicas
from lyra_core.video.dit.network import LYRA2_14B, TINY, DiTConfig, build_dit
from lyra_core.video.vae.interface import VideoAutoencoder
from lyra_core.video.vae.network import TINY_VAE, build_vae
from lyra_core.weights.adapter import Weights, open_weights
from lyra_core.weights.bundle import find_sets
from lyra_core.weights.manifest import read_manifest
from lyra_core.weights.wan_init import WanStart

WAN_DIT = RequiredSet(role="dit", sets=("wan-i2v-14b",))
NEEDED_ROLES = ("dit", "vae", "text", "negative prompt", "tokenizer", "image")
DEBUG_LAYOUT = "f1k1f4s2f1s1f4k4f2k2f1k1_g2"
DEBUG_DIT = dataclasses.replace(TINY, layout=DEBUG_LAYOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPart:
    """What of the transformer is trained, and in which dtype it is kept.

    Attributes:
        lora: train low-rank changes only; None trains the weights.
        freeze: patterns of parameter names that stay as they are.
        layers: keep only the first so-many blocks, to try things; None keeps all.
        masters: dtype of trained weights and of their optimiser's moments. In bfloat16 they take half the memory, but
            most steps at a fine-tuning rate are smaller than its spacing and are lost: for measurements only.
        seed: of the LoRA's first values, and of what Wan 2.1 does not have.
        starts_from_wan: begin with the weights of Wan 2.1 (set wan-i2v-14b) instead of the released ones.
    """

    lora: LoraConfig | None = None
    freeze: tuple[str, ...] = ()
    layers: int | None = None
    masters: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    starts_from_wan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run's networks.

    Attributes:
        networks: with the transformer to train.
        vae: frozen.
        homes: folders of the sets they came from, by role; empty for tiny random networks.
    """

    networks: ReleasedNetworks
    vae: VideoAutoencoder
    homes: dict[str, Path]


def load_trained(
    weights: Path,
    part: TrainedPart,
    captions: Sequence[str],
    out_dir: Path,
    device: str,
    replicas: Replicas,
) -> Trained:
    """Networks of a folder of converted sets (docs/weights.md).

    Args:
        weights: the folder; of its reconstruction set nothing is read.
        part: what is trained.
        captions: that training will meet; their embeddings are kept below out_dir.
        out_dir: of the run.
        device: this process's.
        replicas: the processes; they share the work of embedding.

    Raises:
        ConfigError: a LoRA on the weights of Wan 2.1, which lack more than it can learn.
        WeightsError: sets are missing; the message says how to bring them.
        StateDictError: a set does not fit its network.
    """
    from lyra_core.world_models.networks import (
        load_caption_encoder,
        load_frame_encoder,
        load_negative_prompt,
        load_vae,
    )

    if part.starts_from_wan and part.lora is not None:
        raise ConfigError("training from Wan 2.1 moves all weights: leave out the LoRA or --init-from-wan")
    parts = [needed for needed in LYRA2_PARTS if needed.role in NEEDED_ROLES]
    homes = find_sets(weights, [WAN_DIT if part.starts_from_wan and p.role == "dit" else p for p in parts])
    config = configured(LYRA2_14B, dict(read_manifest(homes["dit"]).config), "config.")
    config = dataclasses.replace(config, num_layers=part.layers or config.num_layers)
    negative = load_negative_prompt(homes["negative prompt"], config.text_dim)
    store = CaptionStore(out_dir / "captions", max(512, negative.shape[1]), negative)
    if missing := store.missing(captions)[replicas.rank :: replicas.count]:
        encoder = load_caption_encoder(homes["text"], homes["tokenizer"], device)
        for caption in missing:
            store.add([caption], encoder)
            encoder.forget()
        del encoder
    if replicas.count > 1:
        dist.barrier()
    networks = trained_networks(config, part, store, load_frame_encoder(homes["image"], device), device)
    source: Mapping[str, Tensor] = first_layers(open_weights(homes["dit"]), config.num_layers)
    if part.starts_from_wan:
        shapes = {name: tuple(parameter.shape) for name, parameter in networks.dit.named_parameters()}
        source = WanStart(source, shapes, [s.pooling for s in config.history_layout.segments], part.seed)
    fill(networks.dit, source, str(homes["dit"]))
    return Trained(networks=networks, vae=load_vae(homes["vae"], device), homes=homes)


def build_debug(part: TrainedPart, device: str) -> Trained:
    """The same code with tiny random networks, to try a folder of clips on a CPU."""
    from lyra_core.finetuning.stand_ins import stand_in_encoders

    text, image = stand_in_encoders(DEBUG_DIT, device)
    config = dataclasses.replace(DEBUG_DIT, num_layers=part.layers or DEBUG_DIT.num_layers)
    networks = trained_networks(config, part, text, image, device)
    generator = torch.Generator().manual_seed(part.seed)
    first = build_dit(config)
    for parameter in first.parameters():
        # a network as built answers with zeros, and none of its blocks gets a gradient
        parameter.data.normal_(std=0.1, generator=generator)
    fill(networks.dit, dict(first.named_parameters()))
    vae = build_vae(TINY_VAE).eval()
    vae.requires_grad_(requires_grad=False)
    for parameter in vae.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return Trained(networks=networks, vae=vae.to(device), homes={})


def trained_networks(
    config: DiTConfig,
    part: TrainedPart,
    text: Callable[[Sequence[str]], Tensor],
    image: Callable[[Tensor], Tensor],
    device: str,
) -> ReleasedNetworks:
    """The transformer with what is trained of it marked, spread where processes are joined, its weights not yet filled.

    Args:
        config: its widths.
        part: what is trained.
        text: embeds captions.
        image: embeds frames.
        device: this process's.

    Raises:
        ConfigError: a pattern that matches nothing, or nothing left to train.
    """
    dit = build_dit(config, device="meta", dtype=getattr(torch, part.masters))
    if part.lora is not None:
        add_lora(dit, part.lora)
    for pattern in part.freeze:
        names = [name for name, _ in dit.named_parameters() if fnmatchcase(name, pattern)]
        if not names:
            raise ConfigError(f"no parameter matches the pattern {pattern!r}; names are those of the checkpoint")
        for name in names:
            dit.get_parameter(name).requires_grad = False
    if not any(parameter.requires_grad for parameter in dit.parameters()):
        raise ConfigError("nothing is left to train: every parameter is frozen")
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        for parameter in dit.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    dit.gradient_checkpointing = True
    networks = ReleasedNetworks(dit, text, image)
    if dist.is_initialized():
        shard(networks, ShardConfig(compute="bfloat16" if is_cuda else "float32"), device)
    networks.to_empty(device=device)
    if part.lora is not None:
        initialise_lora(dit, torch.Generator().manual_seed(part.seed))
    return networks


def first_layers(weights: Weights, count: int) -> Weights:
    """The weights without those of later blocks.

    Raises:
        StateDictError: there are fewer blocks.
    """
    blocks = {int(name.split(".")[1]) for name in weights if name.startswith("blocks.")}
    if not set(range(count)) <= blocks:
        raise StateDictError(f"{weights.path} has {len(blocks)} blocks, {count} are asked for")
    kept = {
        name: tensor
        for name, tensor in weights.stored.items()
        if not name.startswith("blocks.") or int(name.split(".")[1]) < count
    }
    return Weights(weights.path, kept, weights.ignored)
