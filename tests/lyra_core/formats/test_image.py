import base64
import contextlib
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from lyra_core.errors import FrameError, SeedError
from lyra_core.formats.image import jpeg_data_uri, load_seed, open_image, write_jpeg

SEEDS = Path(__file__).resolve().parents[3] / "examples" / "seeds"
PHOTOS = sorted(SEEDS.glob("*.jpg"))


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).round().astype(np.uint8))


def load(data: bytes, width: int = 48, height: int = 32, **kwargs):
    return load_seed(data, width=width, height=height, **kwargs)


def with_exif(tags: dict[int, object], orientation: int | None = None, size=(96, 64)) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    exif.get_ifd(0x8769).update(tags)
    return encode(gradient(*size), "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda p: p.stem)
def test_the_example_photographs(photo):
    seed = open_image(photo, 832, 480)
    portrait = photo.stem == "wine_cellar"
    assert tuple(seed.image.shape) == ((832, 480, 3) if portrait else (480, 832, 3))
    assert seed.uri == str(photo)
    with Image.open(photo) as image:
        assert seed.original_size == image.size
    left, top, right, bottom = seed.crop_box
    assert (right - left) / (bottom - top) == pytest.approx(seed.image.shape[1] / seed.image.shape[0])
    assert seed.image.float().std() > 20


def test_there_are_nine_photographs_with_credits():
    assert len(PHOTOS) == 9
    text = (SEEDS / "ATTRIBUTION.md").read_text()
    assert all(photo.name in text for photo in PHOTOS)


def test_cover_crop_is_central_and_recorded():
    seed = load(encode(gradient(100, 40)), 32, 32)
    assert seed.original_size == (100, 40)
    assert seed.crop_box == pytest.approx((30.0, 0.0, 70.0, 40.0))
    assert seed.image[16, 16].tolist() == pytest.approx([128, 128, 128], abs=5)
    assert len(seed.sha256) == 64


def test_intrinsics_follow_the_crop():
    seed = load(encode(gradient(100, 40)), 32, 32, focal_px=50.0)
    assert seed.intrinsics.dtype == torch.float64
    assert seed.intrinsics.tolist() == [[40.0, 0, 16.0], [0, 40.0, 16.0], [0, 0, 1]]
    assert seed.focal_source == "manifest"


def test_default_field_of_view_is_55_degrees_of_the_original():
    seed = load(encode(gradient(96, 64)), 48, 32)
    assert seed.focal_source == "default"
    hfov = 2 * math.degrees(math.atan(24 / float(seed.intrinsics[0, 0])))
    assert hfov == pytest.approx(55)
    narrow = load(encode(gradient(96, 64)), 32, 32)
    assert 2 * math.degrees(math.atan(16 / float(narrow.intrinsics[0, 0]))) < 45


def test_given_field_of_view():
    seed = load(encode(gradient()), hfov_deg=90.0)
    assert float(seed.intrinsics[0, 0]) == pytest.approx(24.0)
    assert seed.focal_source == "manifest"


def test_portrait_swaps_the_size():
    seed = load(encode(gradient(64, 96)), 48, 32)
    assert tuple(seed.image.shape) == (48, 32, 3)
    assert any("portrait" in note for note in seed.notes)
    square = load(encode(gradient(64, 64)), 48, 32)
    assert tuple(square.image.shape) == (32, 48, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = gradient(96, 64)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    seed = load(encode(stored, "PNG", exif=exif))
    plain = load(encode(upright))
    assert torch.equal(seed.image, plain.image)
    assert seed.original_size == (96, 64)
    assert (f"exif orientation {orientation}" in seed.notes) == (orientation > 1)


def test_focal_length_of_the_35_mm_equivalent():
    seed = load(with_exif({0xA405: 28}, size=(90, 60)), 90, 60)
    assert seed.focal_source == "exif"
    assert float(seed.intrinsics[0, 0]) == pytest.approx(28 / 36 * 90, rel=1e-4)


def test_focal_length_of_the_focal_plane_resolution():
    tags = {0x920A: 10.0, 0xA20E: 300.0, 0xA210: 3, 0xA002: 192}
    seed = load(with_exif(tags, size=(96, 64)), 96, 64)
    # 10 mm at 300 px/cm = 300 px of an image of 192 px, scaled to 96.
    assert float(seed.intrinsics[0, 0]) == pytest.approx(150.0)
    assert seed.focal_source == "exif"


def test_focal_length_of_a_rotated_photograph():
    seed = load(with_exif({0xA405: 36}, orientation=6, size=(96, 64)), 48, 32)
    assert seed.original_size == (64, 96)
    focal = 36 / math.hypot(36, 24) * math.hypot(96, 64)
    assert float(seed.intrinsics[0, 0]) == pytest.approx(focal / 2)


@pytest.mark.parametrize("tags", [{}, {0xA405: 0}, {0xA405: 65000}, {0x920A: 10.0}, {0x920A: 10.0, 0xA20E: 1e-9}])
def test_nonsense_focal_lengths_are_ignored(tags):
    assert load(with_exif(tags)).focal_source == "default"


def test_adobe_rgb_becomes_srgb():
    # A matrix profile with swapped primaries: red pixels must come out green-ish, not red.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {srgb[132 + 12 * i : 136 + 12 * i]: 132 + 12 * i for i in range(struct.unpack(">I", srgb[128:132])[0])}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    swapped = bytearray(srgb)
    swapped[red + 4 : red + 12], swapped[green + 4 : green + 12] = (
        srgb[green + 4 : green + 12],
        srgb[red + 4 : red + 12],
    )
    title = srgb.find("sRGB".encode("utf-16-be"))
    assert title > 0
    swapped[title : title + 8] = "Test".encode("utf-16-be")
    image = Image.new("RGB", (48, 32), (250, 10, 10))
    seed = load(encode(image, icc_profile=bytes(swapped)))
    assert seed.image[0, 0].tolist() == pytest.approx([10, 250, 10], abs=4)
    assert any("colour profile" in note and "to srgb" in note for note in seed.notes)
    kept = load(encode(image, icc_profile=srgb))
    assert kept.image[0, 0].tolist() == [250, 10, 10]
    assert kept.notes == ()


def test_a_broken_profile_does_not_cost_the_photograph():
    seed = load(encode(gradient(), icc_profile=b"not a profile" * 20))
    assert seed.notes == ("unreadable colour profile ignored",)


def test_a_profile_of_another_colour_space_is_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    seed = load(encode(gradient().convert("L"), icc_profile=profile))
    assert any("does not fit l pixels" in note for note in seed.notes)


def test_alpha_is_composited_on_white():
    image = Image.new("RGBA", (48, 32), (200, 0, 0, 128))
    image.putpixel((0, 0), (0, 0, 0, 0))
    seed = load(encode(image))
    assert seed.image[20, 20].tolist() == pytest.approx([227, 127, 127], abs=2)
    assert seed.image[0, 0].float().mean() > 235
    assert "alpha composited on white" in seed.notes
    assert load(encode(Image.new("RGBA", (48, 32), (200, 0, 0, 255)))).notes == ()


def test_transparent_palettes_and_grey():
    palette = Image.new("P", (48, 32), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert load(encode(palette)).image[5, 5].tolist() == [10, 200, 30]
    clear = load(encode(palette, transparency=1))
    assert clear.image[5, 5].tolist() == [255, 255, 255]
    assert load(encode(Image.new("L", (48, 32), 77))).image[5, 5].tolist() == [77, 77, 77]
    assert load(encode(Image.new("LA", (48, 32), (77, 0)))).image[5, 5].tolist() == [255] * 3
    assert load(encode(Image.new("1", (48, 32), 1))).image[5, 5].tolist() == [255] * 3


def test_sixteen_bits():
    values = np.linspace(0, 65535, 48).astype(np.uint16)[None].repeat(32, 0)
    for kind in ("PNG", "TIFF"):
        seed = load(encode(Image.fromarray(values), kind))
        assert seed.image[4, 0, 0] == 0
        assert seed.image[4, 24, 0] == pytest.approx(130, abs=2)
        assert seed.image[4, 47].tolist() == [255] * 3
        assert any("16-bit" in note for note in seed.notes)


def test_sixteen_bit_colour_png():
    row = b"\0" + struct.pack(">3H", 65535, 32768, 0) * 48
    header = struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 32)) + chunk(b"IEND", b"")
    assert load(b"\x89PNG\r\n\x1a\n" + body).image[3, 3].tolist() == [255, 128, 0]


def test_cmyk_and_float():
    cmyk = Image.new("CMYK", (48, 32), (0, 255, 255, 0))
    seed = load(encode(cmyk, "JPEG", quality=95))
    red = seed.image[4, 4].tolist()
    assert red[0] > 200
    assert max(red[1:]) < 60
    assert any("cmyk" in note for note in seed.notes)
    floats = Image.fromarray(np.full((32, 48), 0.5, np.float32))
    assert load(encode(floats, "TIFF")).image[4, 4].tolist() == pytest.approx([128] * 3, abs=1)


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (48, 32), color) for color in ((255, 0, 0), (0, 255, 0))]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    seed = load(data)
    assert seed.image[4, 4].tolist() == [255, 0, 0]
    assert "first of 2 frames" in seed.notes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_formats(kind):
    seed = load(encode(gradient(), kind))
    reference = load(encode(gradient()))
    assert (seed.image.float() - reference.image.float()).abs().mean() < 6


def test_small_images_are_enlarged_and_say_so():
    assert "enlarged 3.00 times" in load(encode(gradient(16, 16)), 48, 48).notes


def png_bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def bad_files() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encode(gradient(), "JPEG"), encode(gradient())
    return {
        "empty": (b"", "is empty"),
        "text": (b"hello world, not an image", "is not an image"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "is not an image"),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated png": (png[: len(png) // 2], "cannot be decoded"),
        "jpeg header only": (jpeg[:4], "not an image|cannot be decoded"),
        "one pixel": (encode(Image.new("RGB", (1, 1))), "1x1 pixels; both sides need at least 16"),
        "thin": (encode(Image.new("RGB", (400, 15))), "at least 16"),
        "bomb": (png_bomb(60_000, 60_000), "60000x60000 = 3600 million pixels"),
        "huge claim": (png_bomb(2**31 - 1, 2**31 - 1), "million pixels"),
        "crc": (png[:40] + b"\xff" + png[41:], "cannot be decoded|not an image"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_bad_files_are_seed_errors_of_one_sentence(name):
    data, message = bad_files()[name]
    with pytest.raises(SeedError, match=message) as caught:
        load(data, uri="s3://bucket/photo.jpg")
    text = str(caught.value)
    assert text.startswith("s3://bucket/photo.jpg")
    assert "\n" not in text
    assert len(text) < 300


def test_the_pixel_limit_is_a_setting():
    data = encode(Image.new("RGB", (100, 100)))
    with pytest.raises(SeedError, match="limit"):
        load(data, max_pixels=9_999)
    assert load(data, max_pixels=10_000).original_size == (100, 100)


def test_pillows_own_limit_does_not_bite(monkeypatch):
    data = encode(gradient(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert load(data).original_size == (100, 100)


HOSTILE_BASES = [encode(gradient(24, 24), kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF")]


@given(st.sampled_from(HOSTILE_BASES), st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_hostile_bytes_raise_nothing_but_seed_errors(base, noise, at):
    data = base[:at] + noise + base[at + len(noise) :]
    with contextlib.suppress(SeedError):
        seed = load(data)
        assert seed.image.shape[2] == 3


def test_impossible_focal_lengths():
    data = encode(gradient())
    for kwargs in (
        {"focal_px": 0.0},
        {"focal_px": math.inf},
        {"hfov_deg": 180.0},
        {"focal_px": 1.0, "hfov_deg": 9.0},
    ):
        with pytest.raises(SeedError, match=r"focal_px|hfov_deg"):
            load(data, **kwargs)


def test_open_image_takes_what_is_at_hand(tmp_path):
    image = gradient()
    array = np.asarray(image)
    (tmp_path / "a.png").write_bytes(encode(image))
    seeds = [
        open_image(source, 48, 32)
        for source in (
            tmp_path / "a.png",
            str(tmp_path / "a.png"),
            image,
            array,
            array / 255.0,
            torch.from_numpy(array.copy()),
        )
    ]
    assert all(torch.equal(seed.image, seeds[0].image) for seed in seeds)
    assert len({seed.sha256 for seed in seeds[2:]}) == 1
    assert open_image(array[..., 0], 48, 32).image.shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 40, 40)), "channels last"),
        (np.zeros((40, 40, 3), np.int32), "uint8 or float"),
        (np.full((40, 40, 3), 2.0), "between 0 and 1"),
        (np.full((40, 40, 3), np.nan), "between 0 and 1"),
        (np.zeros((4, 40, 3), np.uint8), "at least 16"),
        ("/nowhere/photo.jpg", "/nowhere/photo.jpg cannot be read: No such file"),
    ],
)
def test_open_image_refuses(source, message):
    with pytest.raises(SeedError, match=message):
        open_image(source, 48, 32)


def test_jpeg_previews(tmp_path):
    image = load(encode(gradient(832, 480)), 832, 480).image
    write_jpeg(image, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as again:
        assert again.size == (832, 480)
        assert np.abs(np.asarray(again, np.int32) - image.numpy()).mean() < 3


@pytest.mark.parametrize("max_bytes", [1200, 3000, 10_000])
def test_data_uris_are_bounded(max_bytes):
    image = open_image(SEEDS / "forest_stream.jpg", 832, 480).image
    uri = jpeg_data_uri(image, 320, max_bytes)
    assert len(uri) <= max_bytes
    prefix = "data:image/jpeg;base64,"
    assert uri.startswith(prefix)
    with Image.open(io.BytesIO(base64.b64decode(uri[len(prefix) :]))) as small:
        assert max(small.size) <= 320
        assert small.width > small.height
    with pytest.raises(FrameError, match="100 bytes"):
        jpeg_data_uri(image, 320, 100)
