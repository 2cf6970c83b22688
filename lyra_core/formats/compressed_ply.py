"""Gaussians as PlayCanvas's compressed .ply, a fourth of a .ply: what SuperSplat, Spark and PlayCanvas open.

256 Gaussians are a chunk with its least and greatest position, log scale and colour; each Gaussian is four packed
32-bit words relative to them, harmonics are bytes in an element of their own (PlayCanvas engine and splat-transform,
MIT). Axes and units are those of the .ply. Gaussians are sorted along a Morton curve, each part alone, so that chunks
are small and few hold both near things and the dome.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt32

from lyra_core.formats.parts import by_part
from lyra_core.formats.ply import require_finite
from lyra_core.replacing import replacing
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians

CHUNK = 256
_SCALE_LIMIT = 20.0  # of logarithms
_CHUNK_NAMES = [
    *("min_x", "min_y", "min_z", "max_x", "max_y", "max_z"),
    *("min_scale_x", "min_scale_y", "min_scale_z", "max_scale_x", "max_scale_y", "max_scale_z"),
    *("min_r", "min_g", "min_b", "max_r", "max_g", "max_b"),
]


def write_compressed_ply(gaussians: Gaussians, file: str | Path) -> None:
    """Write a compressed .ply; its name should end with .compressed.ply.

    Raises:
        GaussiansError: nothing to write, or values that are not finite.
    """
    require_finite(gaussians)
    parts = [part[torch.from_numpy(morton_order(part.means.numpy()))] for part in by_part(gaussians).values()]
    ordered = Gaussians.concatenate(parts)
    sh = ordered.sh.numpy().astype(np.float64)
    logs = np.log(ordered.scales.numpy().astype(np.float64).clip(1e-30)).clip(-_SCALE_LIMIT, _SCALE_LIMIT)
    position, ends_of_position = _packed(ordered.means.numpy().astype(np.float64), (11, 10, 11))
    scale, ends_of_scale = _packed(logs, (11, 10, 11))
    color, ends_of_color = _packed(0.5 + SH_C0 * sh[:, 0], (8, 8, 8))
    alpha = _steps(ordered.opacities.numpy().astype(np.float64).clip(0, 1), 8)
    words = np.stack(
        [position, _packed_quats(ordered.quats.numpy().astype(np.float64)), scale, (color << np.uint32(8)) | alpha], 1
    )
    chunks = np.concatenate([ends_of_position, ends_of_scale, ends_of_color], 1).astype("<f4")
    rest = _rest_bytes(sh[:, 1:])
    header = ["ply", "format binary_little_endian 1.0", f"element chunk {len(chunks)}"]
    header += [f"property float {name}" for name in _CHUNK_NAMES]
    header.append(f"element vertex {len(words)}")
    header += [f"property uint packed_{name}" for name in ("position", "rotation", "scale", "color")]
    if rest.shape[1]:
        header.append(f"element sh {len(rest)}")
        header += [f"property uchar f_rest_{i}" for i in range(rest.shape[1])]
    with replacing(file) as temporary, temporary.open("wb") as out:
        out.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        out.write(chunks.tobytes())
        out.write(words.astype("<u4").tobytes())
        out.write(rest.tobytes())


def morton_order(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Indices of the points along a Morton curve of 1024 cells a side; equal cells keep their order."""
    low, size = points.min(0), np.ptp(points, 0).clip(1e-30)
    cells = ((points - low) / size * 1023).astype(np.uint32)
    code = np.zeros(len(points), np.uint32)
    for axis in range(3):
        spread = cells[:, axis]
        for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
            spread = (spread | (spread << np.uint32(shift))) & np.uint32(mask)
        code |= spread << np.uint32(axis)
    return np.argsort(code, kind="stable")


def _packed(
    values: Float[np.ndarray, "n 3"], bits: tuple[int, int, int]
) -> tuple[UInt32[np.ndarray, " n"], Float[np.ndarray, "c 6"]]:
    """Values as words relative to the least and greatest of their chunk, and these ends."""
    starts = np.arange(0, len(values), CHUNK)
    # A reader computes with the ends as float32, so the steps are counted between those.
    low = np.minimum.reduceat(values, starts).astype(np.float32).astype(np.float64)
    high = np.maximum.reduceat(values, starts).astype(np.float32).astype(np.float64)
    size = np.where(high > low, high - low, 1.0)
    chunk = np.arange(len(values)) // CHUNK
    share = ((values - low[chunk]) / size[chunk]).clip(0, 1)
    word = np.zeros(len(values), np.uint32)
    for axis in range(3):
        word = (word << np.uint32(bits[axis])) | _steps(share[:, axis], bits[axis])
    return word, np.concatenate([low, high], 1)


def _steps(share: Float[np.ndarray, " n"], bits: int) -> UInt32[np.ndarray, " n"]:
    return np.floor(share * (2**bits - 1) + 0.5).astype(np.uint32)


def _packed_quats(quats: Float[np.ndarray, "n 4"]) -> UInt32[np.ndarray, " n"]:
    """wxyz as which is largest (2 bits, 0 is w) and the three others, in units of sqrt(2), 10 bits each."""
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-30)
    rows, largest = np.arange(len(unit)), np.abs(unit).argmax(1)
    unit = unit * np.where(unit[rows, largest] < 0, -1.0, 1.0)[:, None]
    word = largest.astype(np.uint32)
    others = unit[np.arange(4)[None] != largest[:, None]].reshape(-1, 3)
    for axis in range(3):
        word = (word << np.uint32(10)) | _steps((others[:, axis] * np.sqrt(0.5) + 0.5).clip(0, 1), 10)
    return word


def _rest_bytes(rest: Float[np.ndarray, "n k 3"]) -> UInt8[np.ndarray, "n r"]:
    """Harmonics from -4 to 4 as bytes, all of red first, as in a .ply."""
    flat = rest.transpose(0, 2, 1).reshape(len(rest), -1)
    return ((flat / 8 + 0.5) * 256).clip(0, 255).astype(np.uint8)
