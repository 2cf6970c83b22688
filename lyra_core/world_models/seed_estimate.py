"""The photograph's depth, kept with the chunks of its world: they were made in its scale, and only it continues them.

On another device, or with another build of a library, the estimator would say almost the same, and a path scaled by
almost the same depth is another path.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lyra_core.depth import DepthEstimate, DepthEstimator
from lyra_core.errors import StoreError
from lyra_core.replacing import replacing
from lyra_core.values import Seed
from lyra_core.video.chunk_store import chain_inputs

FILE_NAME = "seed.safetensors"


def estimate_seed(
    photo: Seed, estimator: DepthEstimator, weights_digest: str, folder: Path | None = None
) -> DepthEstimate:
    """Depth, confidence, sky and intrinsics of a photograph without a known camera: found in the folder, or estimated.

    Args:
        photo: sRGB, of the size of the video.
        estimator: asked where nothing is kept of this photograph and these weights.
        weights_digest: identifies the estimator's weights.
        folder: where the estimate is kept; None keeps nothing.

    Raises:
        DepthError: the estimator found nothing.
        StoreError: the folder cannot be written.
    """
    key = chain_inputs(weights_digest, photo.image)
    path = None if folder is None else folder / FILE_NAME
    known = None if path is None else _read(path, key)
    if known is not None:
        return known
    estimate = estimator.estimate(photo.image[None], None)
    if path is not None:
        _write(path, key, estimate)
    return estimate


def _read(path: Path, key: str) -> DepthEstimate | None:
    """None where nothing is kept, or nothing readable: it is estimated anew."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except (OSError, SafetensorError):
        return None
    return DepthEstimate(
        depth_m=tensors["depth_m"],
        confidence=tensors["confidence"],
        sky=tensors["sky"],
        intrinsics=tensors.get("intrinsics"),
    )


def _write(path: Path, key: str, estimate: DepthEstimate) -> None:
    tensors = {"depth_m": estimate.depth_m, "confidence": estimate.confidence, "sky": estimate.sky}
    if estimate.intrinsics is not None:
        tensors["intrinsics"] = estimate.intrinsics
    plain: dict[str, torch.Tensor] = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, metadata={"key": key})
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; free space or choose another folder") from error
