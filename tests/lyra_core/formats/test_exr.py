"""Our reader against our writer, against damage, and, where it is installed, against the OpenEXR library."""

import importlib.util
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_core.errors import FormatError, MissingExtraError
from lyra_core.formats.exr import _unfiltered, read_exr, write_exr

HAS_LIBRARY = importlib.util.find_spec("OpenEXR") is not None


def depth(height=37, width=29, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 2 + 0.05 * x + 0.02 * y + np.where((x > 10) & (y > 12), 30.0, 0.0)
    return (smooth + 0.001 * rng.standard_normal((height, width))).astype(dtype)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.float16, np.float32]), st.integers(0, 9))
def test_what_is_written_is_read(height, width, dtype, seed):
    image = depth(height, width, dtype, seed)
    found = read_exr(write_exr(image), "a.exr")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image.astype(np.float32))


def test_a_single_channel_may_have_any_name():
    image = depth()
    np.testing.assert_array_equal(read_exr(write_exr(image, "Y"), "a.exr"), image)


def recoded(compression: str) -> bytes:
    """A file of ours with its chunks stored in another way."""
    image = depth(9, 11)
    data = bytearray(write_exr(image))
    at = data.index(b"compression\0compression\0") + len(b"compression\0compression\0") + 4
    data[at] = ("NONE", "RLE", "ZIPS").index(compression)
    end = data.index(b"screenWindowWidth\0float\0") + len(b"screenWindowWidth\0float\0") + 4 + 4 + 1
    chunks = []
    for line, row in enumerate(image):
        raw = row.tobytes()
        halves = np.concatenate([np.frombuffer(raw, np.uint8)[::2], np.frombuffer(raw, np.uint8)[1::2]])
        steps = halves.copy()
        steps[1:] = halves[1:] - halves[:-1] + np.uint8(128)
        packed = raw
        if compression == "RLE":
            # one literal run and one run of equal bytes, as a writer may make them
            packed = bytes([256 - 43]) + steps[:43].tobytes() + bytes([0]) + steps[43:44].tobytes()
        chunks.append(struct.pack("<ii", line, len(packed)) + packed)
    start, offsets = end + 8 * len(chunks), []
    for chunk in chunks:
        offsets.append(start)
        start += len(chunk)
    return bytes(data[:end]) + struct.pack(f"<{len(offsets)}Q", *offsets) + b"".join(chunks)


@pytest.mark.parametrize("compression", ["NONE", "RLE", "ZIPS"])
def test_other_compressions_of_scan_lines(compression):
    np.testing.assert_array_equal(read_exr(recoded(compression), "a.exr"), depth(9, 11))


def test_the_filter_is_undone_for_odd_sizes():
    # bytes 10 20 30 are stored as 10 30 20, then as 10, 30 - 10 + 128, 20 - 30 + 128
    assert _unfiltered(bytes([10, 148, 118])) == bytes([10, 20, 30])


def damaged(data: bytes):
    yield b"", "header"
    yield b"\x89PNG" + data[4:], "no EXR file"
    yield data[:60], "header"
    yield data[:-5], "damaged"
    yield data.replace(b"\0box2i\0\x10\0\0\0\0\0\0\0", b"\0box2i\0\x10\0\0\0\x01\0\0\0", 1), "part of a larger"
    yield data[:4] + struct.pack("<i", 2 | 0x1000) + data[8:], "multi-part"
    flipped = bytearray(write_exr(np.full((32, 32), 2.5, np.float32)))
    flipped[-6] ^= 0xFF
    yield bytes(flipped), "damaged"


@pytest.mark.parametrize("case", range(7))
def test_damage_is_named(case):
    data, message = list(damaged(write_exr(depth())))[case]
    with pytest.raises(FormatError, match=message) as caught:
        read_exr(data, "clip.zip:00003.exr")
    assert "clip.zip:00003.exr" in str(caught.value)


def test_a_missing_channel_is_named():
    data = write_exr(depth())
    two = b"A\0" + struct.pack("<iB3xii", 2, 0, 1, 1) + b"B\0" + struct.pack("<iB3xii", 2, 0, 1, 1) + b"\0"
    one = b"Z\0" + struct.pack("<iB3xii", 2, 0, 1, 1) + b"\0"
    both = data.replace(struct.pack("<i", len(one)) + one, struct.pack("<i", len(two)) + two)
    with pytest.raises(FormatError, match="channel 'Z', found A, B"):
        read_exr(both, "a.exr")


def test_an_unknown_compression_asks_for_the_library():
    data = bytearray(write_exr(depth()))
    data[data.index(b"compression\0compression\0") + 28] = 4
    with pytest.raises(FormatError if HAS_LIBRARY else MissingExtraError, match="PIZ"):
        read_exr(bytes(data), "a.exr")


@pytest.mark.skipif(not HAS_LIBRARY, reason="OpenEXR is not installed (extra 'train')")
@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_files_of_the_library(compression, dtype, tmp_path):
    import OpenEXR

    image, path = depth(dtype=dtype), str(tmp_path / "a.exr")
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    channels = {"Z": image, "A": depth(dtype=dtype, seed=3)}
    with OpenEXR.File(header, channels) as file:
        file.write(path)
    found = read_exr((tmp_path / "a.exr").read_bytes(), "a.exr")
    # PXR24 keeps 24 bits of a float
    np.testing.assert_allclose(found, image.astype(np.float32), rtol=2e-5 if compression == "PXR24" else 0)


@pytest.mark.skipif(not HAS_LIBRARY, reason="OpenEXR is not installed (extra 'train')")
def test_the_library_reads_our_files(tmp_path):
    import OpenEXR

    (tmp_path / "a.exr").write_bytes(write_exr(depth(dtype=np.float16)))
    with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
        np.testing.assert_array_equal(file.channels()["Z"].pixels, depth(dtype=np.float16))
