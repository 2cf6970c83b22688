"""Leaves the result of fine-tuning where a recipe can use it: a folder of sets, the new one beside links to the others.

runs/own/weights/lyra2-dit/         or lora-own/: the set that was trained, with a manifest
runs/own/weights/lyra2-vae -> ...   the sets it was trained with

lyra run photo.jpg --recipe lyra2 --set weights=runs/own/weights
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.finetuning.fsdp import gathered
from lyra_core.finetuning.lora import save_lora
from lyra_core.models import LYRA2_PARTS
from lyra_core.video.dit.config import DiTConfig
from lyra_core.video.dit.network import LYRA2_14B, DiT
from lyra_core.weights.convert import SHARD_BYTES, Labels, convert
from lyra_core.weights.manifest import MANIFEST_NAME, read_manifest
from lyra_core.weights.shards import INDEX_NAME

DIT_SET = "lyra2-dit"


def save_trained(
    dit: DiT, out: Path, homes: Mapping[str, Path], *, lora_name: str | None = None, is_first: bool = True
) -> Path:
    """Write the trained transformer, or its LoRA, as a converted set, with links to the sets it belongs to.

    All processes must call this; the first one writes. Weights are written in bfloat16, as released.

    Args:
        dit: may be spread over processes.
        out: the folder of sets; an earlier set of the same name in it is replaced.
        homes: the sets of the run, by role; empty links nothing.
        lora_name: name of the set of a LoRA; None writes the whole transformer.
        is_first: whether this process writes.

    Returns:
        The set's folder.

    Raises:
        ConfigError: a LoRA's name that is that of a model's set.
    """
    taken = {name for part in LYRA2_PARTS for name in part.sets}
    if lora_name is not None and (lora_name in taken or Path(lora_name).name != lora_name):
        raise ConfigError(f"a LoRA needs a name of its own that can be a folder's, found {lora_name!r}")
    home = out / (lora_name or DIT_SET)
    raw = home.with_name(home.name + ".raw")
    if is_first:
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
    if lora_name is None:
        _write_whole(dit, raw, is_first=is_first)
    elif is_first:
        save_lora(dit, raw / "model.safetensors")
    if not is_first:
        return home
    source = homes.get("dit")
    license_name = read_manifest(source).license if source is not None else ""
    shutil.rmtree(home, ignore_errors=True)
    if lora_name is None:
        labels = Labels(name=DIT_SET, license=license_name, config=unlike_released(dit.config))
        convert(raw, home, "lyra2-dit", labels=labels)
    else:
        convert(raw, home, "lora", labels=Labels(name=lora_name, license=license_name))
    shutil.rmtree(raw)
    _link_others(out, homes)
    return home


def unlike_released(config: DiTConfig) -> dict[str, object]:
    """Widths that differ from the released network's, as a manifest keeps them."""
    own, released = dataclasses.asdict(config), dataclasses.asdict(LYRA2_14B)
    return {name: value for name, value in own.items() if value != released[name]}


def _write_whole(dit: DiT, folder: Path, *, is_first: bool) -> None:
    """All parameters, gathered one after the other: never more than one shard of them in memory."""
    from safetensors.torch import save_file

    homes: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    count = 0
    for name, whole in gathered(dit):
        # every process gathers, the first one keeps
        if not is_first:
            continue
        tensor = whole.to("cpu", torch.bfloat16).contiguous()
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            save_file(shard, str(folder / f"part-{count:05d}.safetensors"))
            shard, count = {}, count + 1
        shard[name] = tensor
        homes[name] = f"part-{count:05d}.safetensors"
    if is_first:
        save_file(shard, str(folder / f"part-{count:05d}.safetensors"))
        (folder / INDEX_NAME).write_text(json.dumps({"weight_map": homes}), "utf-8")


def _link_others(out: Path, homes: Mapping[str, Path]) -> None:
    """Links to the folders beside the run's own sets, so that the new folder is complete."""
    for folder in {home.parent for home in homes.values()}:
        for other in sorted(folder.iterdir()):
            link = out / other.name
            if other.is_dir() and not link.exists() and _is_set(other):
                link.symlink_to(other.resolve(), target_is_directory=True)


def _is_set(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (MANIFEST_NAME, "tokenizer.json", "spiece.model"))
