"""License-clean photographs for training: which may be learned from, which are held out, and crops of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra_core.errors import SeedError

HELD_OUT_PHOTOGRAPHS = frozenset({"coffee_table", "launch_pad", "wine_cellar"})
"""Stems that no training run may see: the photographs the shipped weights are judged on."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryPhoto:
    """One decoded photograph.

    Attributes:
        name: the file's stem.
        pixels: sRGB. [h w 3] uint8
    """

    name: str
    pixels: UInt8[Tensor, "h w 3"]


def load_photographs(folder: str | Path, split: str, *, max_side_px: int = 1280) -> list[LibraryPhoto]:
    """Photographs of one split, in the order of their names.

    Args:
        folder: holds image files, also in subfolders.
        split: "train" (everything but HELD_OUT_PHOTOGRAPHS) or "heldout" (only those).
        max_side_px: larger images are reduced to this long side.

    Raises:
        SeedError: the folder is missing or a file of it cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    root = Path(folder)
    if not root.is_dir():
        raise SeedError(f"photographs are read from a folder, and {root} is none; give the folder that holds them")
    photographs = []
    for path in sorted(root.rglob("*"), key=lambda path: path.stem):
        held_out = path.stem in HELD_OUT_PHOTOGRAPHS
        if path.suffix.lower() not in SUFFIXES or held_out != (split == "heldout"):
            continue
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise SeedError(f"{path} is not an image that can be decoded ({error}); remove or replace it") from error
        rgb.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
        photographs.append(LibraryPhoto(name=path.stem, pixels=torch.from_numpy(np.array(rgb))))
    return photographs


def square_crops(photograph: LibraryPhoto, size: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Square crops at random places and scales, the first of them the whole middle.

    Args:
        photograph: source.
        size: texels of a side.
        count: how many.
        rng: source of places and scales.

    Returns:
        sRGB in [0, 1], each [size size 3] float32.
    """
    from PIL import Image

    image = Image.fromarray(photograph.pixels.numpy())
    short = min(image.size)
    crops = []
    for index in range(count):
        side = short if index == 0 else int(max(size, short * rng.uniform(0.3, 0.9)))
        side = min(side, short)
        left = (image.width - side) // 2 if index == 0 else int(rng.integers(0, image.width - side + 1))
        top = (image.height - side) // 2 if index == 0 else int(rng.integers(0, image.height - side + 1))
        box = (left, top, left + side, top + side)
        crop = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
        crops.append(np.asarray(crop, dtype=np.float32) / 255)
    return crops
