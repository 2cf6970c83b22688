"""Pictures with words on them: rows of frames, each with a label at its left, columns with a label above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABEL_PX, HEADER_PX, GAP_PX = 150, 22, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One row of a sheet: pictures in [0, 1] [3 h w], None leaves a place empty."""

    label: str
    pictures: Sequence[Tensor | None]


def write_sheet(title: str, columns: list[str], strips: list[Strip], path: Path) -> None:
    """Write strips one below the other; a strip without pictures is a gap with its label as a heading."""
    height, width = next(p.shape[1:] for s in strips for p in s.pictures if p is not None)
    tall = [HEADER_PX if not strip.pictures else height + GAP_PX for strip in strips]
    sheet = Image.new("RGB", (LABEL_PX + len(columns) * (width + GAP_PX), 2 * HEADER_PX + sum(tall)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((4, 4), title, "black", font)
    for index, name in enumerate(columns):
        draw.text((LABEL_PX + index * (width + GAP_PX), HEADER_PX + 3), name, "black", font)
    top = 2 * HEADER_PX
    for strip, step in zip(strips, tall, strict=True):
        draw.text((4, top + (4 if not strip.pictures else height // 2 - 14)), strip.label, "black", font)
        for index, picture in enumerate(strip.pictures):
            if picture is not None:
                sheet.paste(_image(picture), (LABEL_PX + index * (width + GAP_PX), top))
        top += step
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=88)


def _image(picture: Tensor) -> Image.Image:
    pixels = (picture.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy()))
