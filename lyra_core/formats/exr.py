"""Depth in OpenEXR files: one channel of a scan-line image, as structure-from-motion tools and renderers write it.

Reads uncompressed, RLE, ZIPS and ZIP files with numpy and zlib alone; other compressions, and tiles, through the
package OpenEXR where it is installed. Layout: "OpenEXR File Layout", "Technical Introduction to OpenEXR" (openexr.com).
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra_core.errors import FormatError
from lyra_core.extras import require

MAGIC = 20000630
_TILED, _DEEP, _MULTIPART = 0x200, 0x800, 0x1000
# Names by number, and scan lines of a chunk of those that are read here.
_COMPRESSIONS = ("NONE", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB", "HTJ2K")
_LINES = {"NONE": 1, "RLE": 1, "ZIPS": 1, "ZIP": 16}
_PIXELS = (np.dtype("<u4"), np.dtype("<f2"), np.dtype("<f4"))
MAX_SIDE = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What is needed of a header; channels in their order in the file."""

    channels: tuple[tuple[str, np.dtype], ...]
    compression: str
    width: int
    height: int
    first_line: int
    end: int
    needs_library: bool


def read_exr(data: bytes, name: str, channel: str = "Z") -> np.ndarray:
    """One channel of an image.

    Args:
        data: the file.
        name: the file, for messages.
        channel: which; a file of a single channel gives that one, whatever it is called.

    Returns:
        [h w] float32.

    Raises:
        FormatError: no EXR file, damaged, without the channel, or of a kind that nothing here reads.
        MissingExtraError: a compression that the package OpenEXR reads, which is not installed.
    """
    header = _header(data, name)
    names = [channel_name for channel_name, _ in header.channels]
    if channel not in names and len(names) > 1:
        raise FormatError(f"{name} should have a channel {channel!r}, found {', '.join(names)}")
    chosen = channel if channel in names else names[0]
    if header.needs_library or header.compression not in _LINES:
        return _read_with_library(data, name, chosen, header)
    try:
        return _read_lines(data, chosen, header)
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise FormatError(f"{name} is a damaged EXR file: {error}; write it again") from error


def write_exr(depth: np.ndarray, channel: str = "Z") -> bytes:
    """A file of one channel, ZIP-compressed, half or float as the array is.

    Args:
        depth: [h w] float16 or float32
        channel: its name.

    Raises:
        FormatError: another shape or dtype.
    """
    if depth.ndim != 2 or depth.dtype not in (np.float16, np.float32) or not depth.size:
        raise FormatError(f"an EXR channel is written from [h w] float16 or float32, found {depth.shape} {depth.dtype}")
    height, width = depth.shape
    kind = 1 if depth.dtype == np.float16 else 2
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = (
        ("channels", "chlist", channel.encode() + b"\0" + struct.pack("<iB3xii", kind, 0, 1, 1) + b"\0"),
        ("compression", "compression", bytes([_COMPRESSIONS.index("ZIP")])),
        ("dataWindow", "box2i", box),
        ("displayWindow", "box2i", box),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1.0)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0.0, 0.0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1.0)),
    )
    head = struct.pack("<ii", MAGIC, 2)
    for key, form, value in attributes:
        head += key.encode() + b"\0" + form.encode() + b"\0" + struct.pack("<i", len(value)) + value
    head += b"\0"
    chunks = []
    for first in range(0, height, _LINES["ZIP"]):
        raw = depth[first : first + _LINES["ZIP"]].astype(_PIXELS[kind]).tobytes()
        packed = zlib.compress(_filtered(raw))
        # a chunk that does not shrink is stored as it is
        packed = packed if len(packed) < len(raw) else raw
        chunks.append(struct.pack("<ii", first, len(packed)) + packed)
    at = len(head) + 8 * len(chunks)
    offsets = []
    for chunk in chunks:
        offsets.append(at)
        at += len(chunk)
    return head + struct.pack(f"<{len(offsets)}Q", *offsets) + b"".join(chunks)


def _header(data: bytes, name: str) -> _Header:
    try:
        magic, version = struct.unpack_from("<ii", data)
        if magic != MAGIC:
            raise FormatError(f"{name} is no EXR file: it should begin with 76 2f 31 01, found {data[:4].hex(' ')}")
        if version & (_DEEP | _MULTIPART):
            raise FormatError(f"{name} is a deep or multi-part EXR file; write depth as a flat image of one part")
        attributes, end = _attributes(data, 8)
        left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
        channels = _channels(attributes["channels"])
        code = attributes["compression"][0]
    except (struct.error, KeyError, ValueError, IndexError) as error:
        raise FormatError(f"{name} has a damaged EXR header: {error}; write it again") from error
    width, height = right - left + 1, bottom - top + 1
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and channels):
        raise FormatError(f"{name} should hold an image of at most {MAX_SIDE} pixels a side, found {width}x{height}")
    if attributes.get("displayWindow", attributes["dataWindow"]) != attributes["dataWindow"]:
        raise FormatError(f"{name} shows a part of a larger image; write its whole display window")
    return _Header(
        channels=channels,
        compression=_COMPRESSIONS[code] if code < len(_COMPRESSIONS) else f"number {code}",
        width=width,
        height=height,
        first_line=top,
        end=end,
        needs_library=bool(version & _TILED),
    )


def _attributes(data: bytes, at: int) -> tuple[dict[str, bytes], int]:
    attributes: dict[str, bytes] = {}
    while data[at] != 0:
        key_end = data.index(b"\0", at)
        form_end = data.index(b"\0", key_end + 1)
        (size,) = struct.unpack_from("<i", data, form_end + 1)
        start = form_end + 5
        if size < 0 or start + size > len(data):
            raise ValueError("an attribute ends beyond the file")
        attributes[data[at:key_end].decode("latin-1")] = data[start : start + size]
        at = start + size
    return attributes, at + 1


def _channels(data: bytes) -> tuple[tuple[str, np.dtype], ...]:
    channels, at = [], 0
    while data[at] != 0:
        end = data.index(b"\0", at)
        kind, _, across, down = struct.unpack_from("<iB3xii", data, end + 1)
        if (across, down) != (1, 1):
            raise ValueError("channels of a lower resolution are not supported")
        channels.append((data[at:end].decode("latin-1"), _PIXELS[kind]))
        at = end + 17
    return tuple(channels)


def _read_lines(data: bytes, channel: str, header: _Header) -> np.ndarray:
    lines, width = _LINES[header.compression], header.width
    line_bytes = sum(dtype.itemsize for _, dtype in header.channels) * width
    names = [channel_name for channel_name, _ in header.channels]
    place = names.index(channel)
    before = sum(dtype.itemsize for _, dtype in header.channels[:place]) * width
    dtype = header.channels[place][1]
    image = np.empty((header.height, width), np.float32)
    count = -(-header.height // lines)
    for offset in struct.unpack_from(f"<{count}Q", data, header.end):
        line, size = struct.unpack_from("<ii", data, offset)
        first = line - header.first_line
        rows = min(lines, header.height - first)
        packed = data[offset + 8 : offset + 8 + size]
        if not 0 <= first < header.height or first % lines or len(packed) != size:
            raise ValueError(f"the chunk of line {line} lies outside the image or the file")
        raw = _unpacked(packed, rows * line_bytes, header.compression)
        block = np.frombuffer(raw, np.uint8).reshape(rows, line_bytes)[:, before : before + width * dtype.itemsize]
        image[first : first + rows] = np.ascontiguousarray(block).view(dtype)
    return image


def _unpacked(packed: bytes, size: int, compression: str) -> bytes:
    if len(packed) == size:
        return packed
    if compression == "RLE":
        filtered = _run_lengths(packed)
    elif compression in ("ZIP", "ZIPS"):
        # bounded, so that a crafted chunk cannot fill the memory
        inflater = zlib.decompressobj()
        filtered = inflater.decompress(packed, size + 1)
        if not inflater.eof:
            raise ValueError("a chunk ends early or is too long")
    else:
        filtered = packed
    if len(filtered) != size:
        raise ValueError(f"a chunk should unpack to {size} bytes, found {len(filtered)}")
    return _unfiltered(filtered)


def _filtered(raw: bytes) -> bytes:
    """Even bytes before odd ones, each as the difference to its neighbour plus 128."""
    plain = np.frombuffer(raw, np.uint8)
    halves = np.concatenate([plain[::2], plain[1::2]])
    halves[1:] = halves[1:] - halves[:-1] + np.uint8(128)
    return halves.tobytes()


def _unfiltered(filtered: bytes) -> bytes:
    """Undo `_filtered`."""
    steps = np.frombuffer(filtered, np.uint8).copy()
    steps[1:] += np.uint8(128)
    halves = np.add.accumulate(steps, dtype=np.uint8)
    plain = np.empty_like(halves)
    middle = (len(halves) + 1) // 2
    plain[::2], plain[1::2] = halves[:middle], halves[middle:]
    return plain.tobytes()


def _run_lengths(packed: bytes) -> bytes:
    """Runs: a count n >= 0 and a byte repeated n + 1 times, or n < 0 and -n literal bytes."""
    out, at = bytearray(), 0
    while at < len(packed):
        count = packed[at] - 256 if packed[at] > 127 else packed[at]
        if count < 0:
            out += packed[at + 1 : at + 1 - count]
            at += 1 - count
        else:
            out += packed[at + 1 : at + 2] * (count + 1)
            at += 2
    return bytes(out)


def _read_with_library(data: bytes, name: str, channel: str, header: _Header) -> np.ndarray:
    kind = "tiles" if header.needs_library else f"{header.compression} compression"
    require("OpenEXR", f"reading {name} ({kind})")
    import OpenEXR

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "depth.exr"
        path.write_bytes(data)
        try:
            with OpenEXR.File(str(path), separate_channels=True) as file:
                return np.array(file.channels()[channel].pixels, np.float32)
        except (RuntimeError, ValueError, KeyError) as error:
            raise FormatError(f"{name} ({kind}) cannot be read: {error}; write it with ZIP compression") from error
