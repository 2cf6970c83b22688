"""A set of the video network whose wide layers are 8-bit already: half the bytes to keep, read and hold.

    lyra weights convert weights/lyra2-dit weights/lyra2-dit-fast --speed fast

The numbers are those that loading with video.speed=fast makes of the other set, so worlds have the same ids and bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.configure import configured
from lyra_core.errors import WeightsError
from lyra_core.video.dit.config import LYRA2_14B, DiTConfig
from lyra_core.video.dit.network import build_dit
from lyra_core.video.dit.scaled_linear import narrow_rows
from lyra_core.video.dit.speed import narrow_layers
from lyra_core.weights.adapter import Weights, open_weights
from lyra_core.weights.bundle import NARROW_SUFFIX, narrowed_from
from lyra_core.weights.convert import SHARD_BYTES, Labels, Progress, convert
from lyra_core.weights.manifest import MANIFEST_NAME, Manifest, manifest_digest, read_manifest
from lyra_core.weights.shards import INDEX_NAME

KIND = "lyra2-dit"


def narrow_set(src: Path, dst: Path, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None) -> Manifest:
    """Make the 8-bit set of a converted set of the video network.

    Args:
        src: the converted set.
        dst: the directory to make; loaders look for the name of `src` with "-fast" beside it.
        shard_bytes: largest size of a shard.
        progress: told how far the last step is.

    Raises:
        WeightsError: another kind of set, one that is 8-bit already, or dst is in use.
    """
    src, dst = Path(src), Path(dst)
    manifest = read_manifest(src)
    if manifest.kind != KIND:
        raise WeightsError(f"8-bit layers are made of the video network ({KIND}); {src} holds {manifest.kind!r}")
    if narrowed_from(src) is not None:
        raise WeightsError(f"{src} holds 8-bit layers already; convert the set it was made from")
    if dst.exists():
        raise WeightsError(f"{dst} exists already; remove it, or check it with `lyra weights verify {dst}`")
    raw = dst.with_name(dst.name + ".raw")
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    try:
        layers = narrow_layers(build_dit(dit_config(manifest.config), device="meta"))
        if not layers:
            raise WeightsError(f"{src}: no layer of this network is wide enough for 8 bits (multiples of 16 channels)")
        _write(_narrowed(open_weights(src), layers), raw, shard_bytes)
        labels = Labels(
            name=dst.name,
            license=manifest.license,
            repo_id=manifest.source.repo_id,
            revision=manifest.source.revision,
            config={**manifest.config, "narrowed_from": manifest.digest},
        )
        return convert(raw, dst, KIND, labels=labels, shard_bytes=shard_bytes, progress=progress)
    finally:
        shutil.rmtree(raw, ignore_errors=True)


def dit_config(config: Mapping[str, object]) -> DiTConfig:
    """Widths of the video network from a manifest, which tells how they differ from the released ones."""
    known = {field.name for field in fields(DiTConfig)}
    return configured(LYRA2_14B, {name: value for name, value in config.items() if name in known}, "config.")


def fitting_set(home: Path, speed: str, *, has_loras: bool) -> Path:
    """Which of the sets of the video network is to be read: the 8-bit one where its numbers are wanted.

    Args:
        home: the set that was found.
        speed: profile of the video network.
        has_loras: LoRA files are to be merged, which needs all digits.

    Raises:
        WeightsError: there is nothing but an 8-bit set, and more is wanted.
    """
    if narrowed_from(home) is not None:
        if speed == "exact" or has_loras:
            why = "LoRA files cannot be merged into them" if has_loras else 'video.speed is "exact"'
            raise WeightsError(
                f"{home} holds 8-bit layers and {why}; bring the set it was made from (lyra weights fetch lyra2-dit), "
                "or choose --set video.speed=fast without LoRA files"
            )
        return home
    narrow = home.with_name(home.name + NARROW_SUFFIX)
    if speed == "exact" or has_loras or not (narrow / MANIFEST_NAME).is_file():
        return home
    return narrow if narrowed_from(narrow) == manifest_digest(home) else home


def _narrowed(weights: Weights, layers: list[str]) -> Iterator[tuple[str, Tensor]]:
    """All tensors in bfloat16, as loading rounds them, and the chosen layers as rows in 8 bits with their scales."""
    chosen = {f"{layer}.weight" for layer in layers}
    for name in weights:
        tensor = weights[name].to(torch.bfloat16)
        if name in chosen:
            values, scale = narrow_rows(tensor)
            yield name, values
            yield f"{name}_scale", scale.T.contiguous()
        else:
            yield name, tensor.contiguous()


def _write(tensors: Iterator[tuple[str, Tensor]], folder: Path, shard_bytes: int) -> None:
    """Safetensors files with an index, one of them in memory at a time."""
    from safetensors.torch import save_file

    homes: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    count = 0
    for name, tensor in tensors:
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > shard_bytes:
            save_file(shard, str(folder / f"part-{count:05d}.safetensors"))
            shard, count = {}, count + 1
        shard[name] = tensor
        homes[name] = f"part-{count:05d}.safetensors"
    save_file(shard, str(folder / f"part-{count:05d}.safetensors"))
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": homes}), "utf-8")
