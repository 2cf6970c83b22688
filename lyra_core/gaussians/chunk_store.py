"""Lifted chunks on disk: a killed reconstruction finds what it had, and memory holds one chunk at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import StoreError, TornObjectError
from lyra_core.gaussians.lifters import HeadGaussians, Lift
from lyra_core.replacing import replacing
from lyra_core.values import Gaussians, VideoClip

FORMAT = "lift-1"
_GAUSSIAN_FIELDS = ("means", "quats", "scales", "opacities", "sh")


def lift_key(lifter_name: str, clip: VideoClip, reference_depth_m: Float[Tensor, "t h w"] | None) -> str:
    """A digest of everything that determines a lift: lifter, pixels, cameras, layers and reference depth."""
    digest = hashlib.sha256(f"{FORMAT}:{lifter_name}".encode())
    layers = (
        clip.frames,
        clip.cameras.world_to_cam,
        clip.cameras.intrinsics,
        clip.depth_m,
        clip.depth_confidence,
        clip.sky,
        reference_depth_m,
    )
    for layer in layers:
        digest.update(b"none" if layer is None else f"{tuple(layer.shape)}{layer.dtype}".encode())
        if layer is not None:
            digest.update(layer.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def save_lift(lift: Lift, path: Path) -> None:
    """Write a lift; whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {"depth_m": lift.depth_m, "confidence": lift.confidence, "sky": lift.sky}
    if lift.recovered is not None:
        tensors["recovered"] = lift.recovered
    if lift.head is not None:
        tensors |= {f"head.{name}": getattr(lift.head.gaussians, name) for name in _GAUSSIAN_FIELDS}
        tensors |= {"head.frame": lift.head.frame, "head.spacing_m": lift.head.spacing_m}
    try:
        with replacing(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(temporary))
    except OSError as error:
        raise StoreError(
            f"the lifted chunk {path} cannot be written: {error}; check the folder and its space"
        ) from error


def load_lift(path: Path) -> Lift:
    """Read what save_lift wrote.

    Raises:
        TornObjectError: missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Read rather than mapped: mapped pages stay resident for as long as a tensor refers to them.
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise TornObjectError(
            f"the lifted chunk {path} cannot be read: {error}; delete it to have it made again"
        ) from error
    head = None
    if "head.frame" in tensors:
        head = HeadGaussians(
            gaussians=Gaussians(**{name: tensors[f"head.{name}"] for name in _GAUSSIAN_FIELDS}),
            frame=tensors["head.frame"],
            spacing_m=tensors["head.spacing_m"],
        )
    return Lift(
        depth_m=tensors["depth_m"],
        confidence=tensors["confidence"],
        sky=tensors["sky"].to(torch.bool),
        recovered=tensors.get("recovered"),
        head=head,
    )
