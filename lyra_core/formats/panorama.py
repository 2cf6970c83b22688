"""Panoramas are no perspective photographs: a 360-degree picture is told by its metadata and refused.

Cameras and stitchers write Google's photo sphere metadata (XMP, namespace GPano) into such files. A wide picture
without them is an ordinary crop.
"""

from __future__ import annotations

import re

from PIL import Image

from lyra_core.errors import SeedError

_NAMESPACE = "http://ns.google.com/photos/1.0/panorama/"
# Beyond this an equirectangular picture bends lines that a perspective one keeps straight.
MAX_SPAN_DEG = 120.0
_SQUARE_DEGREES = 0.02  # relative: a whole sphere is twice as wide as high


def require_perspective(picture: Image.Image, name: str) -> None:
    """Refuse a panorama that says it is one.

    Args:
        picture: as decoded, with its metadata.
        name: where it came from, for the error.

    Raises:
        SeedError: equirectangular (or cylindrical) and wider than 120 degrees.
    """
    text = _xmp(picture)
    if "GPano" not in text and _NAMESPACE not in text:
        return
    projection = _property(text, "ProjectionType").lower()
    width, height = picture.size
    is_sphere = abs(width / height - 2) <= 2 * _SQUARE_DEGREES
    if projection not in ("equirectangular", "cylindrical") and not is_sphere:
        return
    span_deg = _span_deg(text)
    if span_deg is not None and span_deg <= MAX_SPAN_DEG:
        return
    wide = "360 degrees" if span_deg is None else f"{span_deg:.0f} degrees"
    raise SeedError(
        f"{name} is an {projection or 'equirectangular'} panorama, {wide} wide by its metadata, and a world begins "
        f"with a perspective photograph; render a perspective view of it first, for example with: "
        f"ffmpeg -i panorama.jpg -vf v360=e:flat:h_fov=75:v_fov=47 view.jpg"
    )


def _xmp(picture: Image.Image) -> str:
    data = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)


def _property(text: str, name: str) -> str:
    """A property, as an attribute or an element. No XML parser: it would expand what strangers define."""
    match = re.search(rf"GPano:{name}\s*(?:=\s*[\"']|>)\s*([\w.+-]{{1,40}})", text)
    return match[1] if match else ""


def _span_deg(text: str) -> float | None:
    """How much of the circle the file's picture covers, where it says."""
    try:
        full = float(_property(text, "FullPanoWidthPixels"))
        return 360 * float(_property(text, "CroppedAreaImageWidthPixels")) / full if full > 0 else None
    except ValueError:
        return None
