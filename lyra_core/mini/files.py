"""The embedded weights of the mini model: written by training, checked by digests, loaded by one call.

    models = load_mini()                     # dit, vae, text and image encoders, rollout choices
    write_component(folder, "vae", state, MINI_VAE)

A folder holds `mini.json` (components, widths, files and their SHA-256) and safetensors files in bfloat16, split where
a component is large.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from lyra_core.config.rollout import RolloutConfig
from lyra_core.errors import WeightsError
from lyra_core.mini.config import MINI
from lyra_core.mini.depth import MiniDepth, MiniDepthConfig
from lyra_core.mini.encoders import ByteText, FrameTokens
from lyra_core.mini.manifest import (
    MANIFEST,
    MINI_FOLDER,
    SUPER_RESOLUTION,
    Component,
    Training,
    Width,
    mini_digest,
    read_components,
)
from lyra_core.mini.networks import MiniNetworks
from lyra_core.mini.super_resolution import SuperResolution, SuperResolutionConfig
from lyra_core.mini.vae import MiniVAE, MiniVAEConfig, build_mini_vae
from lyra_core.video.dit.config import DiTConfig
from lyra_core.video.dit.network import DiT

if TYPE_CHECKING:
    from collections.abc import Mapping

PART_BYTES = 15_000_000

Module = TypeVar("Module", bound=torch.nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniModels:
    """The networks of the mini video model and how they are run.

    Attributes:
        dit: the video network.
        vae: its autoencoder.
        text: caption bytes to tokens.
        image: frames to tokens.
        config: of the rollout.
        digest: SHA-256 over all files.
    """

    dit: DiT
    vae: MiniVAE
    text: ByteText
    image: FrameTokens
    config: RolloutConfig
    digest: str


def write_component(
    folder: Path,
    name: str,
    state: Mapping[str, Tensor],
    widths: DiTConfig | MiniVAEConfig | MiniDepthConfig | SuperResolutionConfig,
    training: Training | None = None,
) -> list[Path]:
    """Write one network in bfloat16, in parts, and note it in the manifest; files of the one before go.

    Args:
        folder: of the weights.
        name: of the component.
        state: its tensors.
        widths: its configuration.
        training: what it cost, for the card.

    Returns:
        The files written.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key in sorted(state):
        tensor = state[key].detach().to(torch.bfloat16).cpu().contiguous()
        if filled and filled + 2 * tensor.numel() > PART_BYTES:
            parts.append({})
            filled = 0
        parts[-1][key] = tensor
        filled += 2 * tensor.numel()
    files: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"{name}.safetensors" if len(parts) == 1 else f"{name}-{number}.safetensors"
        # one entry: several are written in an order that differs from call to call, and digests with it
        save_file(part, str(folder / file), metadata={"component": name})
        files[file] = file_digest(folder / file)
    known = read_components(folder) if (folder / MANIFEST).is_file() else {}
    for file in set(known[name].files if name in known else ()) - set(files):
        (folder / file).unlink(missing_ok=True)
    known[name] = Component(widths=asdict(widths), files=files, training=training)
    rows = {key: asdict(known[key]) for key in sorted(known)}
    (folder / MANIFEST).write_text(json.dumps({"components": rows}, indent=1) + "\n", encoding="utf-8")
    return [folder / file for file in files]


def read_state(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Width]]:
    """Tensors of one network, its files checked, and its widths.

    Raises:
        WeightsError: a file is missing or its digest differs.
    """
    from safetensors.torch import load_file

    components = read_components(folder)
    if name not in components:
        raise WeightsError(f"{folder} holds {sorted(components)}, wanted {name!r}; pack a training run of it there")
    state: dict[str, Tensor] = {}
    for file, wanted in components[name].files.items():
        path = folder / file
        digest = file_digest(path) if path.is_file() else "no file"
        if digest != wanted:
            raise WeightsError(
                f"{path} has digest {digest[:12]}, the manifest says {wanted[:12]}; reinstall the package"
            )
        state |= load_file(str(path))
    return state, components[name].widths


def load_mini_vae(
    folder: Path = MINI_FOLDER, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> MiniVAE:
    """The autoencoder alone.

    Raises:
        WeightsError: files that are missing, changed or do not fit.
    """
    state, widths = read_state(folder, "vae")
    vae = build_mini_vae(MiniVAEConfig(**widths))  # type: ignore[arg-type]
    _fill(vae, state, folder)
    return _ready(vae, device, dtype)


def load_mini_depth(
    folder: Path = MINI_FOLDER, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> MiniDepth:
    """The network of depth and Gaussians.

    Raises:
        WeightsError: files that are missing, changed or do not fit.
    """
    state, widths = read_state(folder, "depth")
    depth = MiniDepth(MiniDepthConfig(**widths))  # type: ignore[arg-type]
    _fill(depth, state, folder)
    return _ready(depth, device, dtype)


def load_super_resolution(
    folder: Path = MINI_FOLDER, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> SuperResolution:
    """The network of super-resolution.

    Raises:
        WeightsError: files that are missing, changed or do not fit.
    """
    state, widths = read_state(folder, SUPER_RESOLUTION)
    network = SuperResolution(SuperResolutionConfig(**widths))  # type: ignore[arg-type]
    _fill(network, state, folder)
    return _ready(network, device, dtype)


def load_mini(
    folder: Path = MINI_FOLDER,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    component: str = "video",
) -> MiniModels:
    """All networks of the mini video model.

    Args:
        folder: of the weights.
        device: where they compute.
        dtype: of the weights there; bfloat16 is twice as fast where the processor has it.
        component: "video", or the name of another training of it in the folder.

    Raises:
        WeightsError: files that are missing, changed or do not fit.
    """
    state, widths = read_state(folder, component)
    networks = MiniNetworks(DiTConfig(**widths))  # type: ignore[arg-type]
    _fill(networks, state, folder)
    networks = _ready(networks, device, dtype)
    return MiniModels(
        dit=networks.dit,
        vae=load_mini_vae(folder, device, dtype),
        text=networks.text,
        image=networks.image,
        config=MINI,
        digest=mini_digest(folder),
    )


def _ready(model: Module, device: str | torch.device, dtype: torch.dtype) -> Module:
    """A network to compute with; channels last, which convolutions of this size want (a third faster on a CPU)."""
    model = model.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(requires_grad=False)


def _fill(model: torch.nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    found, wanted = ({(k, tuple(v.shape)) for k, v in s.items()} for s in (state, model.state_dict()))
    if found != wanted:
        raise WeightsError(
            f"weights in {folder} do not fit their widths: "
            f"missing {sorted(wanted - found)[:4]}, unknown {sorted(found - wanted)[:4]}"
        )
    model.load_state_dict(state)


def file_digest(path: Path) -> str:
    """SHA-256 of a file of weights, as the manifest names it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
