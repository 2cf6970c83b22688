"""Photographs in, previews out: untrusted image files become seeds, images become JPEG.

Whatever a photograph is (rotated by EXIF, in Adobe RGB or CMYK, 16-bit, with transparency), a Seed
holds what a viewer shows: upright sRGB of 8 bits, cropped to the size a recipe works at, with the
intrinsics of that crop.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from lyra_core.errors import FrameError, SeedError
from lyra_core.formats.eight_bits import declared_top, to_eight_bits
from lyra_core.formats.panorama import require_perspective
from lyra_core.geometry.camera import DEFAULT_HFOV_DEG
from lyra_core.replacing import replacing
from lyra_core.values import Seed

MIN_SIDE_PX = 16
MAX_PIXELS = 200_000_000
# Decoders for photographs only: no PostScript, no fonts, nothing that runs a program.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF")
# What Pillow's decoders raise on hostile bytes (found by mutating files of every format).
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, RuntimeError, MemoryError, struct.error, zlib.error),
    Image.DecompressionBombError,  # some plugins check frames against Pillow's own limit
)
# EXIF tags (Exif 2.32, sections 4.6.4 and 4.6.5).
_EXIF_IFD, _ORIENTATION = 0x8769, 0x0112
_FOCAL_LENGTH, _FOCAL_35MM = 0x920A, 0xA405
_PLANE_X_RESOLUTION, _PLANE_RESOLUTION_UNIT, _PIXEL_X_DIMENSION = 0xA20E, 0xA210, 0xA002
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
# Diagonal of the 36 x 24 mm frame: CIPA DCG-001 defines the 35 mm equivalent by the diagonal field
# of view.
_DIAGONAL_35MM = math.hypot(36.0, 24.0)
# A camera's horizontal field of view lies between a long lens and a fisheye; beyond, the metadata
# are wrong.
_PLAUSIBLE_HFOV_DEG = (3.0, 160.0)


@dataclass(slots=True)
class _Decoded:
    """An upright sRGB image and what was learned while decoding."""

    image: Image.Image
    exif_focal_px: float | None = None
    notes: list[str] = field(default_factory=list)


def load_seed(
    data: bytes,
    *,
    width: int,
    height: int,
    uri: str = "",
    focal_px: float | None = None,
    hfov_deg: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Seed:
    """Decode a photograph of unknown origin into a seed of a recipe's size.

    The image is turned upright, converted to sRGB (embedded profile), transparency is composited
    on white, and it is scaled (Lanczos) and cropped centrally to cover `width` x `height`; a
    portrait photograph gets `height` x `width` (and a landscape one under a portrait recipe
    likewise). The focal length comes from, in this order: the arguments, EXIF, 55 degrees
    horizontally.

    Args:
        data: the file's bytes.
        width: columns of the seed, for a landscape photograph.
        height: rows of it.
        uri: where the bytes came from; appears in errors.
        focal_px: known focal length in pixels of the upright original.
        hfov_deg: known horizontal field of view of the upright original, degrees.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        SeedError: empty, truncated, not an image, smaller than 16 pixels, larger than max_pixels,
            a panorama by its metadata, or an impossible focal length.
    """
    name = uri or "the seed image"
    if not data:
        raise SeedError(f"{name} is empty (0 bytes); wanted a photograph, upload the file again")
    decoded = _decode(data, name, max_pixels)
    return _make_seed(
        decoded,
        hashlib.sha256(data).hexdigest(),
        uri,
        (width, height),
        _given(focal_px, hfov_deg, name),
    )


def open_image(
    image: str | Path | Image.Image | np.ndarray | Tensor,
    width: int,
    height: int,
    *,
    focal_px: float | None = None,
    hfov_deg: float | None = None,
) -> Seed:
    """A seed from whatever is at hand: a file's path, a PIL image, or an array of pixels.

    Args:
        image: a path, a PIL image, or uint8 or float (0 to 1) pixels, [h w], [h w 3] or [h w 4].
        width: columns of the seed, for a landscape photograph; see load_seed.
        height: rows of it.
        focal_px: known focal length in pixels of the original.
        hfov_deg: known horizontal field of view of the original, degrees.

    Raises:
        SeedError: as load_seed, or an array of another shape, type or range.
    """
    if isinstance(image, str | Path):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise SeedError(f"{image} cannot be read: {error.strerror or error}; check the path") from error
        return load_seed(data, width=width, height=height, uri=str(image), focal_px=focal_px, hfov_deg=hfov_deg)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(_pixels(image))
    _require_size(picture.size, "the seed image", MAX_PIXELS)
    try:
        picture.load()
    except _DECODER_ERRORS as error:
        raise SeedError(f"the seed image cannot be decoded, {_reason(error)}; open it again") from error
    decoded = _to_srgb(picture, [])
    digest = hashlib.sha256(f"{decoded.image.mode} {decoded.image.size} ".encode())
    digest.update(decoded.image.tobytes())
    return _make_seed(
        decoded,
        digest.hexdigest(),
        "",
        (width, height),
        _given(focal_px, hfov_deg, "the seed image"),
    )


def write_jpeg(image: UInt8[Tensor, "h w 3"], path: str | Path, *, quality: int = 90) -> None:
    """Write an sRGB image as JPEG, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(encode_jpeg(image, quality=quality))


def write_depth_png(depth: Float[Tensor, "h w"], path: str | Path) -> None:
    """Write depth as a 16-bit grey PNG in thousandths of a unit: 0 where unknown, nothing beyond 65.535 units."""
    thousandths = (depth.double() * 1000).round()
    known = (thousandths >= 1) & (thousandths <= 65_535)
    values = torch.where(known, thousandths, 0.0).to("cpu").numpy().astype(np.uint16)
    with replacing(path) as temporary:
        Image.fromarray(values).save(temporary, "PNG")


def encode_jpeg(image: UInt8[Tensor, "h w 3"], *, quality: int = 90) -> bytes:
    """The bytes that `write_jpeg` writes."""
    buffer = io.BytesIO()
    _to_pil(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def jpeg_data_uri(image: UInt8[Tensor, "h w 3"], max_side: int, max_bytes: int) -> str:
    """An sRGB image as a `data:image/jpeg;base64,` URI of bounded size, for artifacts and tables.

    Quality falls first, then size, until the whole URI has at most `max_bytes` characters.

    Raises:
        FrameError: not even 8 pixels fit.
    """
    picture = _to_pil(image)
    side = min(max_side, max(picture.size))
    while side >= 8:
        scale = side / max(picture.size)
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        small = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        for quality in (85, 75, 60, 45):
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality, optimize=True)
            uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
            if len(uri) <= max_bytes:
                return uri
        side = int(side * 0.8)
    raise FrameError(f"a thumbnail does not fit into {max_bytes} bytes even at 8 pixels; allow about 1000 or more")


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.detach().to("cpu").contiguous().numpy())


def _decode(data: bytes, name: str, max_pixels: int) -> _Decoded:
    try:
        picture = _open(data)
        _require_size(picture.size, name, max_pixels)
        picture.load()
        num_frames = getattr(picture, "n_frames", 1)
    except UnidentifiedImageError as error:
        raise SeedError(
            f"{name} is not an image: wanted {', '.join(_FORMATS)}, found bytes starting with "
            f"{data[:8]!r}; "
            f"convert it to JPEG or PNG"
        ) from error
    except _DECODER_ERRORS as error:
        raise SeedError(
            f"{name} cannot be decoded, {_reason(error)}; wanted a whole image file, found "
            f"{len(data)} bytes: "
            f"upload it again or save it anew"
        ) from error
    require_perspective(picture, name)
    return _to_srgb(picture, [f"first of {num_frames} frames"] if num_frames > 1 else [])


def _open(data: bytes) -> Image.Image:
    """Image.open without its limit of 179 million pixels, which only a process-wide variable could
    raise."""
    Image.init()
    for kind in _FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        verdict = accept is not None and accept(data[:16])
        # A string is the reason why the format is known but its library is missing.
        if not verdict or isinstance(verdict, str):
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            # The plugin's way to say "not mine".
            continue
    raise UnidentifiedImageError("no decoder accepts these bytes")


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "it is truncated" if "truncated" in text.lower() else text.splitlines()[0][:120]


def _require_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise SeedError(
            f"{name} has {width}x{height} = {width * height / 1e6:.0f} million pixels, more "
            f"than the limit of "
            f"{max_pixels / 1e6:.0f} million; scale it down"
        )
    if min(size) < MIN_SIDE_PX:
        raise SeedError(
            f"{name} has {width}x{height} pixels; both sides need at least {MIN_SIDE_PX}: use a larger image"
        )


def _to_srgb(picture: Image.Image, notes: list[str]) -> _Decoded:
    decoded = _Decoded(image=picture, notes=notes)
    orientation, tags = _read_exif(picture, notes)
    decoded.exif_focal_px = _exif_focal_px(tags, picture.size)
    profile, top = picture.info.get("icc_profile"), declared_top(picture)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
        notes.append(f"exif orientation {orientation}")
    picture = to_eight_bits(picture, top, notes)
    if picture.mode == "P" or picture.mode in ("LA", "PA", "La", "RGBa"):
        has_alpha = picture.mode != "P" or "transparency" in picture.info
        notes.append(f"{picture.mode.lower()} to {'rgba' if has_alpha else 'rgb'}")
        # A profile of a palette image belongs to its colours, one of LA to grey: convert those
        # below.
        picture = picture.convert("RGBA" if has_alpha else "RGB")
    elif picture.mode in ("RGB", "L", "1") and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    picture = _profile_to_srgb(picture.convert("RGB") if alpha else picture, profile, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", picture.size, (255, 255, 255))
        picture = Image.composite(picture, white, alpha)
        notes.append("alpha composited on white")
    decoded.image = picture
    return decoded


def _read_exif(picture: Image.Image, notes: list[str]) -> tuple[int, dict[int, object]]:
    """Orientation (1 is upright) and the tags of the camera."""
    try:
        exif = picture.getexif()
        orientation, tags = exif.get(_ORIENTATION, 1), dict(exif.get_ifd(_EXIF_IFD))
    except _DECODER_ERRORS:
        # A good picture with bad metadata is a good picture.
        notes.append("unreadable exif ignored")
        return 1, {}
    return (orientation if isinstance(orientation, int) else 1), tags


def _profile_to_srgb(picture: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    mode = picture.mode
    try:
        if mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
            notes.append("lab to srgb")
            return _transform(picture, source)
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            title = ImageCms.getProfileDescription(source).strip()
            space = source.profile.xcolor_space.strip()
            fits = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) == mode
            if fits and not title.lower().startswith("srgb"):
                notes.append(f"colour profile '{title}' to srgb")
                return _transform(picture, source)
            if not fits:
                notes.append(f"colour profile '{title}' does not fit {mode.lower()} pixels: ignored")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        notes.append("unreadable colour profile ignored")
    if mode != "RGB":
        notes.append(f"{mode.lower()} to srgb" if mode == "CMYK" else f"{mode.lower()} to rgb")
    return picture if mode == "RGB" else picture.convert("RGB")


def _transform(picture: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        picture,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if converted is None:
        raise ValueError("the colour transform returned nothing")
    return converted


def _exif_focal_px(tags: dict[int, object], size: tuple[int, int]) -> float | None:
    """Focal length in pixels of the file's image, or None where EXIF does not tell or tells
    nonsense."""
    equivalent = _positive(tags.get(_FOCAL_35MM))
    focal = None
    if equivalent is not None:
        focal = equivalent / _DIAGONAL_35MM * math.hypot(*size)
    else:
        length, resolution = (
            _positive(tags.get(_FOCAL_LENGTH)),
            _positive(tags.get(_PLANE_X_RESOLUTION)),
        )
        unit = _MM_PER_UNIT.get(int(_positive(tags.get(_PLANE_RESOLUTION_UNIT)) or 2))
        if length is not None and resolution is not None and unit is not None:
            # The resolution is of the picture as taken, which may have been scaled since.
            taken = _positive(tags.get(_PIXEL_X_DIMENSION)) or size[0]
            focal = length / unit * resolution * size[0] / taken
    return focal if focal is not None and _is_plausible(focal, size[0]) else None


def _is_plausible(focal_px: float, width: int) -> bool:
    # atan2: a focal length that underflows to 0 is implausible, not an error.
    hfov = 2 * math.degrees(math.atan2(width / 2, focal_px))
    return _PLAUSIBLE_HFOV_DEG[0] <= hfov <= _PLAUSIBLE_HFOV_DEG[1]


def _positive(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _given(focal_px: float | None, hfov_deg: float | None, name: str) -> tuple[float | None, float | None]:
    if focal_px is not None and hfov_deg is not None:
        raise SeedError(f"{name}: give focal_px or hfov_deg, not both")
    if focal_px is not None and not (math.isfinite(focal_px) and focal_px > 0):
        raise SeedError(f"{name}: focal_px must be positive, found {focal_px}")
    if hfov_deg is not None and not 0 < hfov_deg < 180:
        raise SeedError(f"{name}: hfov_deg lies between 0 and 180 degrees, found {hfov_deg}")
    return focal_px, hfov_deg


def _make_seed(
    decoded: _Decoded,
    sha256: str,
    uri: str,
    recipe_size: tuple[int, int],
    given: tuple[float | None, float | None],
) -> Seed:
    picture, notes = decoded.image, decoded.notes
    wide, high = picture.size
    width, height = recipe_size
    if (high > wide) != (height > width) and high != wide and height != width:
        width, height = height, width
        notes.append(f"{'portrait' if high > wide else 'landscape'}: size {width}x{height}")
    scale = max(width / wide, height / high)
    left, top = (wide - width / scale) / 2, (high - height / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(wide - left, wide), min(high - top, high))
    if scale > 1:
        notes.append(f"enlarged {scale:.2f} times")
    focal, source = _focal(decoded, given)
    intrinsics = torch.tensor(
        [
            [focal * scale, 0.0, (wide / 2 - box[0]) * scale],
            [0.0, focal * scale, (high / 2 - box[1]) * scale],
            [0.0, 0.0, 1.0],
        ],
        dtype=torch.float64,
    )
    resized = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return Seed(
        image=torch.from_numpy(np.array(resized)),
        intrinsics=intrinsics,
        sha256=sha256,
        uri=uri,
        focal_source=source,
        original_size=(wide, high),
        crop_box=box,
        notes=tuple(notes),
    )


def _focal(decoded: _Decoded, given: tuple[float | None, float | None]) -> tuple[float, str]:
    """Focal length in pixels of the upright original, and where it is from."""
    focal_px, hfov_deg = given
    half = decoded.image.width / 2
    if focal_px is not None:
        return focal_px, "manifest"
    if hfov_deg is not None:
        return half / math.tan(math.radians(hfov_deg) / 2), "manifest"
    if decoded.exif_focal_px is not None:
        return decoded.exif_focal_px, "exif"
    return half / math.tan(math.radians(DEFAULT_HFOV_DEG) / 2), "default"


def _pixels(image: np.ndarray | Tensor) -> np.ndarray:
    array = image.detach().to("cpu").numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise SeedError(f"pixels must be [h w], [h w 3] or [h w 4], found {list(array.shape)}; move channels last")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise SeedError(f"pixels must be uint8 or float from 0 to 1, found {array.dtype}")
    if not np.isfinite(array).all() or array.min(initial=0) < 0 or array.max(initial=0) > 1:
        raise SeedError("float pixels must lie between 0 and 1, and be finite; divide by the maximum or pass uint8")
    return (array * 255).round().astype(np.uint8)
