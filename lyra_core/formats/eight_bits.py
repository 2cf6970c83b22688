"""Grey of other depths to the 8 bits a viewer would show: by the depth a file declares, not by how bright it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

# A picture whose brightest hundredth stays below this is in units of 1, however bright a few highlights are.
_WHITE_SHARE = 0.99
_SAMPLE = 1 << 20  # pixels enough for a quantile
# Floats that reach this with their brightest hundredth count to 255; lower ones are light beyond white.
_LEAST_OF_255 = 16.0
# TIFF tags (TIFF 6.0): bits of a sample, largest sample.
_BITS_PER_SAMPLE, _MAX_SAMPLE = 258, 281


def declared_top(picture: Image.Image) -> int | None:
    """The value of white that a file of more than 8 bits declares, or None; transposing forgets it."""
    if not picture.mode.startswith("I"):
        return None
    top = 65535 if picture.mode != "I" or picture.format in ("PNG", "PPM", "JPEG2000") else None
    tags = getattr(picture, "tag_v2", None)
    if tags is None:
        return top
    bits, most = _first(tags.get(_BITS_PER_SAMPLE)), _first(tags.get(_MAX_SAMPLE))
    if bits is not None and 8 < bits < 16:
        top = 2**bits - 1
    return most if most is not None and top is not None and 255 <= most < top else top


def to_eight_bits(picture: Image.Image, top: int | None, notes: list[str]) -> Image.Image:
    """Integers over the range they declare, floats from 0 to 1 with highlights clipped; other pictures as they are.

    Args:
        picture: of any of Pillow's modes.
        top: from `declared_top` of the file.
        notes: gets a line about what was done.
    """
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if top is None:  # 32 bits declare no range that anyone uses
            top = 255 if values.size and values.max() <= 255 else 65535
            notes.append("32-bit grey to 8-bit")
        else:
            notes.append(f"{top.bit_length()}-bit grey to 8-bit")
        return _image(values.astype(np.float32) * np.float32(255 / top))
    if picture.mode == "F":
        return _image(255 * _display(np.asarray(picture), notes))
    return picture


def _display(floats: np.ndarray, notes: list[str]) -> np.ndarray:
    """Floats from 0 to 1 as they are shown."""
    known = np.isfinite(floats)
    if not known.any():
        notes.append("float grey without a number to 8-bit")
        return np.zeros(floats.shape)
    most = float(floats[known].max())
    floats = np.nan_to_num(floats, nan=0.0, posinf=most, neginf=0.0)
    sample = floats.reshape(-1)[:: max(1, floats.size // _SAMPLE)]
    white = float(np.quantile(sample, _WHITE_SHARE))
    if white <= 1:
        over = float((floats > 1).mean())
        notes.append(f"float grey to 8-bit{f', {over:.1%} above 1 clipped' if over else ''}")
        return floats
    if most <= 255 and (white >= _LEAST_OF_255 or np.array_equal(floats, np.rint(floats))):
        notes.append("float grey of 0 to 255 to 8-bit")
        return floats / 255
    # Light beyond white (HDR): linear, so that it needs the transfer curve of sRGB.
    notes.append(f"float grey of high range to 8-bit: scaled by its 99 % quantile {white:.4g}, as linear light")
    linear = (floats / white).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _first(value: object) -> int | None:
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) else None
