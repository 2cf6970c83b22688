"""Grey of other depths, pictures without a picture, and panoramas: shown as a viewer shows them, or refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from lyra_core.errors import SeedError
from lyra_core.formats.blank import MIN_RANGE, content_range, require_content
from lyra_core.formats.image import load_seed

RAMP = np.linspace(0, 1, 96 * 64).reshape(64, 96).astype(np.float32)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(data: bytes):
    return load_seed(data, width=96, height=64)


def shown(values: np.ndarray, kind: str = "TIFF", **options) -> tuple[np.ndarray, str]:
    seed = load(encode(Image.fromarray(values), kind, **options))
    return seed.image[..., 0].numpy().astype(float), "; ".join(seed.notes)


@pytest.mark.parametrize("highlight", [1.0, 1.02, 3.0, 1000.0, np.inf])
def test_a_few_highlights_do_not_darken_a_float_picture(highlight):
    values = RAMP.copy()
    values[5, 5] = highlight
    picture, notes = shown(values)
    expected, _ = shown(RAMP)
    assert np.abs(np.delete(picture, 5 * 96 + 5) - np.delete(expected, 5 * 96 + 5)).max() <= 1
    assert picture[5, 5] == 255
    assert ("clipped" in notes) == (1 < highlight < np.inf)


@pytest.mark.parametrize(
    ("values", "note", "middle"),
    [
        (RAMP * 255, "0 to 255", 127.5),
        (np.rint(RAMP * 9), "0 to 255", 4.5),
        (RAMP * 8, "high range", 188),
        (RAMP * 1e6, "high range", 188),
        (RAMP - 0.5, "float grey to 8-bit", 0),
        (np.full_like(RAMP, np.nan), "without a number", 0),
    ],
)
def test_floats_of_other_ranges(values, note, middle):
    picture, notes = shown(values.astype(np.float32))
    assert note in notes
    assert picture[32, 0] == pytest.approx(middle, abs=2.5)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_dark_sixteen_bits_stay_dark(kind):
    picture, notes = shown((RAMP * 255).astype(np.uint16), kind)
    assert "16-bit" in notes
    assert picture.max() <= 1


def test_the_declared_depth_counts():
    pgm = b"P5 96 64 4095\n" + (RAMP * 4095).astype(">u2").tobytes()
    assert load(pgm).image.max() == 255
    dim = b"P5 96 64 4095\n" + (RAMP * 200).astype(">u2").tobytes()
    assert load(dim).image.max() == pytest.approx(12, abs=1)
    twelve, notes = shown((RAMP * 4095).astype(np.uint16), "TIFF", tiffinfo={281: 4095})
    assert twelve.max() == 255
    assert "12-bit" in notes


def photograph() -> np.ndarray:
    y, x = np.mgrid[0:64, 0:96]
    return np.stack([120 + x, 100 + y, 200 - x], -1).astype(np.float64)


def night() -> np.ndarray:
    picture = np.random.default_rng(0).normal(2, 1.5, (64, 96, 3))
    picture[30:33, 50:53] = 250
    return picture


def fog() -> np.ndarray:
    return 190 + (photograph() - 150) / 10 + np.random.default_rng(1).normal(0, 2, (64, 96, 3))


@pytest.mark.parametrize("picture", [photograph, night, fog])
def test_a_night_and_a_fog_have_content(picture):
    require_content(torch.from_numpy(picture().clip(0, 255).round().astype(np.uint8)), "x.jpg")


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (90, 120, 30)])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_photograph_of_nothing_is_refused(color, noise):
    values = np.array(color) + np.random.default_rng(2).normal(0, noise, (240, 416, 3))
    image = torch.from_numpy(values.clip(0, 255).round().astype(np.uint8))
    with pytest.raises(SeedError, match=r"lens cap.jpg holds no picture: everywhere about the colour \(\d+, "):
        require_content(image, "lens cap.jpg")
    assert content_range(image) < MIN_RANGE / 1.5, "room for noise"


def test_a_transparent_picture_is_white():
    with pytest.raises(SeedError, match=r"no picture.*\(255, 255, 255\)"):
        require_content(load(encode(Image.new("RGBA", (96, 64), (0, 0, 0, 0)))).image, "x.png")


def gpano(*attributes: str) -> bytes:
    inside = " ".join(f'GPano:{a.partition("=")[0]}="{a.partition("=")[2]}"' for a in attributes)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {inside}/></rdf:RDF></x:xmpmeta>'
    ).encode()


def picture_of(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, 1, 3)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_panorama_that_says_so_is_refused(kind):
    xmp = gpano("ProjectionType=equirectangular", "FullPanoWidthPixels=4000")
    options: dict = {"xmp": xmp}
    if kind == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif kind == "TIFF":
        options = {"tiffinfo": {700: xmp}}
    with pytest.raises(SeedError, match=r"equirectangular panorama, 360 degrees wide.*render a perspective view"):
        load(encode(picture_of(400, 200), kind, **options))


@pytest.mark.parametrize(
    ("xmp", "size", "refused"),
    [
        (gpano(), (400, 200), "360 degrees"),
        (gpano("UsePanoramaViewer=True"), (400, 240), None),
        (gpano("ProjectionType=rectilinear"), (400, 240), None),
        (
            gpano("ProjectionType=equirectangular", "FullPanoWidthPixels=4000", "CroppedAreaImageWidthPixels=800"),
            (400, 240),
            None,
        ),
        (
            gpano("ProjectionType=cylindrical", "FullPanoWidthPixels=4000", "CroppedAreaImageWidthPixels=2000"),
            (900, 200),
            "cylindrical panorama, 180 degrees",
        ),
        (
            gpano().replace(b"/></rdf:RDF", b"><GPano:ProjectionType>equirectangular</GPano:ProjectionType></rdf:RDF"),
            (300, 200),
            "360 degrees",
        ),
        (b"<x:xmpmeta/>", (400, 200), None),
        (b"", (4000, 200), None),
    ],
)
def test_wide_crops_are_no_panoramas(xmp, size, refused):
    data = encode(picture_of(*size), "JPEG", **({"xmp": xmp} if xmp else {}))
    if refused is None:
        assert load(data).original_size == size
    else:
        with pytest.raises(SeedError, match=refused):
            load(data)
