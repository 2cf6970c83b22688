"""What cameras a world asks for: preset names, chunk lengths and the bytes that identify a request.

No torch here: planning a batch computes thousands of world ids and starts nothing. Ids chain over
chunks, so the bytes of chunk k must not change when a longer path is asked for, where the path
allows it: the pose of a steady preset at frame i does not depend on the number of frames, that of
a closed one does. Bytes identify the request, not the poses: presets are scaled by the seed's
depth later.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra_core.errors import CameraPathError

CHUNK_FRAMES = 80
# Raise when a preset's poses change: worlds made with the old poses keep their ids.
PRESETS_VERSION = 1
# A trajectory of 100,000 frames is 16 MB; more is not a camera path.
MAX_TRAJECTORY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named camera path.

    Attributes:
        description: what the camera does, for people.
        is_steady: the pose at frame i does not depend on the number of frames.
    """

    description: str
    is_steady: bool


PRESETS: dict[str, Preset] = {
    "dolly-in": Preset(description="moves forward slowly", is_steady=True),
    "dolly-out": Preset(description="moves backward slowly", is_steady=True),
    "zoom-in": Preset(description="travels forward", is_steady=True),
    "zoom-out": Preset(description="travels backward and rises", is_steady=True),
    "truck-left": Preset(description="moves left, looking ahead", is_steady=True),
    "truck-right": Preset(description="moves right, looking ahead", is_steady=True),
    "pan-left": Preset(description="turns left on the spot", is_steady=True),
    "pan-right": Preset(description="turns right on the spot", is_steady=True),
    "tilt-up": Preset(description="tilts up on the spot, up to 45 degrees", is_steady=True),
    "tilt-down": Preset(description="tilts down on the spot, up to 45 degrees", is_steady=True),
    "orbit-left": Preset(description="circles the scene clockwise seen from above", is_steady=True),
    "orbit-right": Preset(description="circles the scene anticlockwise seen from above", is_steady=True),
    "spiral": Preset(description="circles in the image plane while moving forward slowly", is_steady=True),
    "arc-left": Preset(description="swings left about the scene, starting and ending at rest", is_steady=False),
    "arc-right": Preset(description="swings right about the scene, starting and ending at rest", is_steady=False),
    "walk-forward-and-look-back": Preset(
        description="walks forward, then turns round to where it came from", is_steady=False
    ),
    "out-and-back": Preset(description="moves forward and returns to the first camera", is_steady=False),
}

# The reference implementation's presets, named lyra2/<preset>/<direction>; all depend on the
# number of frames.
REFERENCE_PREFIX = "lyra2"
REFERENCE_DIRECTIONS = ("left", "right", "up", "down")
REFERENCE_PRESETS = (
    *("original", "spiral", "spiral_center", "spiral_outwards", "horizontal", "horizontal_noise"),
    *("horizontal_lift", "horizontal_lift_noise", "horizontal_zoom", "horizontal_zoom_noise"),
    *(
        "horizontal_zoom_bend",
        "horizontal_zoom_noise_bend",
        "horizontal_zoom_still",
        "horizontal_still",
    ),
    *(
        "horizontal_simple",
        "vertical_simple",
        "horizontal_outward",
        "back",
        "back_simple",
        "dolly_zoom",
    ),
    *(
        "horizontal_spiral",
        "orbit_horizontal",
        "orbit_vertical",
        "rotate_zoom_in",
        "rotate_zoom_out",
    ),
    *("rotate_spot", "rotate_spot_noise"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPathRequest:
    """A camera path as a manifest asks for it.

    Attributes:
        name: a preset (`PRESETS`), `lyra2/<preset>/<direction>`, or the path of a trajectory file
            (.npz, .json).
        num_frames: 1 + 80 k.
        strength: 1 is the preset's own pace; ignored by files.
    """

    name: str
    num_frames: int
    strength: float = 1.0

    @property
    def is_file(self) -> bool:
        """Whether the name is a trajectory file's path."""
        return Path(self.name).suffix.lower() in (".npz", ".json")


def is_steady(name: str) -> bool:
    """Whether a preset's pose at frame i does not depend on the number of frames.

    Raises:
        CameraPathError: an unknown preset.
    """
    require_preset(name)
    return name in PRESETS and PRESETS[name].is_steady


def require_preset(name: str) -> None:
    """Refuse names that are no preset.

    Raises:
        CameraPathError: the message lists the presets and names the nearest.
    """
    if name in PRESETS or split_reference_name(name) is not None:
        return
    import difflib

    near = difflib.get_close_matches(name, PRESETS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise CameraPathError(
        f"unknown camera path {name!r}: wanted one of {', '.join(PRESETS)}, "
        f"{REFERENCE_PREFIX}/<preset>/<direction>, or a trajectory file (.npz, .json){hint}"
    )


def split_reference_name(name: str) -> tuple[str, str] | None:
    """Preset and direction of a `lyra2/<preset>/<direction>` name, or None."""
    parts = name.split("/")
    known = len(parts) == 3 and parts[0] == REFERENCE_PREFIX
    if known and parts[1] in REFERENCE_PRESETS and parts[2] in REFERENCE_DIRECTIONS:
        return parts[1], parts[2]
    return None


def num_chunks(num_frames: int) -> int:
    """Chunks of 80 frames after the seed frame.

    Raises:
        CameraPathError: a count that is not 1 + 80 k with k >= 1; the message names the nearest.
    """
    chunks, rest = divmod(num_frames - 1, CHUNK_FRAMES)
    if rest or chunks < 1:
        near = 1 + CHUNK_FRAMES * max(1, round((num_frames - 1) / CHUNK_FRAMES))
        raise CameraPathError(
            f"a camera path needs 1 + 80 k frames (81, 161, 241, ...): the seed and whole chunks; "
            f"found {num_frames}, the nearest is {near}"
        )
    return chunks


def request_digest_parts(name_or_file: str | Path, num_frames: int, *, strength: float = 1.0) -> list[bytes]:
    """For each chunk, the canonical bytes of the cameras requested for it (chunk 0 includes frame
    0).

    Steady presets and .npz files share the parts of a common prefix; closed presets and .json key
    poses (which are spread over all frames) do not.

    Raises:
        CameraPathError: an unknown preset, a count that is not 1 + 80 k, a file that cannot be
            read or is shorter.
    """
    chunks = num_chunks(num_frames)
    request = CameraPathRequest(name=str(name_or_file), num_frames=num_frames, strength=strength)
    if request.is_file:
        data = read_trajectory_bytes(name_or_file)
        if is_npz(data):
            return _file_parts(data, num_frames, chunks, str(name_or_file))
        whole = hashlib.sha256(canonical_json(data, str(name_or_file))).digest()
        return [_part(b"keyposes", whole, struct.pack("<qq", num_frames, k)) for k in range(chunks)]
    require_preset(request.name)
    if not math.isfinite(strength) or strength <= 0:
        raise CameraPathError(f"a camera path's strength is a positive number, found {strength}")
    frames = 0 if is_steady(request.name) else num_frames
    head = (
        b"preset",
        request.name.encode(),
        struct.pack("<qdq", PRESETS_VERSION, strength, frames),
    )
    return [_part(*head, struct.pack("<q", k)) for k in range(chunks)]


def request_digest(name_or_file: str | Path, num_frames: int) -> str:
    """SHA-256 of all that `request_digest_parts` says, hex: equal for equal requests, whatever the seed.

    Raises:
        CameraPathError: as there.
    """
    whole = hashlib.sha256()
    for part in request_digest_parts(name_or_file, num_frames):
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def read_trajectory_bytes(path: str | Path) -> bytes:
    """A trajectory file's bytes, refused above 64 MiB.

    Raises:
        CameraPathError: unreadable or too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_TRAJECTORY_BYTES:
            raise CameraPathError(f"{path} is {size} bytes; a trajectory is at most {MAX_TRAJECTORY_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise CameraPathError(f"trajectory {path} cannot be read: {error.strerror or error}") from error


def is_npz(data: bytes) -> bool:
    """Whether bytes are a zip archive, as .npz files are."""
    return data[:4] == b"PK\x03\x04"


def canonical_json(data: bytes, origin: str) -> bytes:
    """JSON with sorted keys and no white space, so that reformatting a file does not change its
    worlds.

    Raises:
        CameraPathError: not JSON, or it holds NaN or infinity.
    """

    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}")

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CameraPathError(f"{origin} is neither .npz nor valid JSON: {error}") from error
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryArrays:
    """The arrays of a trajectory.npz, of checked shapes and finite; rigidity is checked by
    CameraPath.

    Attributes:
        world_to_cam: [t 4 4] float64
        intrinsics: [t 3 3] float64
        image_height: rows of the image the intrinsics belong to.
        image_width: columns of it.
    """

    world_to_cam: np.ndarray
    intrinsics: np.ndarray
    image_height: int
    image_width: int


def read_trajectory_npz(data: bytes, origin: str = "trajectory") -> TrajectoryArrays:
    """Read `w2c` [t 4 4], `intrinsics` [t 3 3] (or one [3 3] for all), `image_height`,
    `image_width`.

    Raises:
        CameraPathError: not an .npz, pickled objects, arrays missing, of wrong shapes or not
            finite.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_TRAJECTORY_BYTES:
            raise CameraPathError(f"{origin} unpacks to {unpacked} bytes; at most {MAX_TRAJECTORY_BYTES} are read")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (
        zipfile.BadZipFile,
        ValueError,
        OSError,
        EOFError,
        KeyError,
        NotImplementedError,
    ) as error:
        raise CameraPathError(
            f"{origin} is not a plain .npz of arrays: {error}; pickled objects are refused, save with numpy.savez"
        ) from error
    wanted = ("w2c", "intrinsics", "image_height", "image_width")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise CameraPathError(f"{origin} lacks {', '.join(missing)}; it needs {', '.join(wanted)}, found {list(found)}")
    try:
        w2c = np.asarray(found["w2c"], np.float64)
        intrinsics = np.asarray(found["intrinsics"], np.float64)
        height, width = int(found["image_height"].item()), int(found["image_width"].item())
    except (TypeError, ValueError, OverflowError) as error:
        raise CameraPathError(
            f"{origin} must hold numbers, with a scalar image_height and image_width: {error}"
        ) from error
    if w2c.ndim != 3 or w2c.shape[1:] != (4, 4) or len(w2c) == 0:
        raise CameraPathError(f"{origin}: w2c must be [t 4 4], found {list(w2c.shape)}")
    if intrinsics.shape == (3, 3):
        intrinsics = np.broadcast_to(intrinsics, (len(w2c), 3, 3)).copy()
    if intrinsics.shape != (len(w2c), 3, 3):
        raise CameraPathError(f"{origin}: intrinsics must be [{len(w2c)} 3 3], found {list(intrinsics.shape)}")
    for name, values in (("w2c", w2c), ("intrinsics", intrinsics)):
        bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
        if bad.any():
            raise CameraPathError(f"{origin}: {name} of frames {np.flatnonzero(bad)[:8].tolist()} is NaN or infinite")
    if height < 1 or width < 1:
        raise CameraPathError(f"{origin}: the image size must be positive, found {width}x{height}")
    return TrajectoryArrays(world_to_cam=w2c, intrinsics=intrinsics, image_height=height, image_width=width)


def _file_parts(data: bytes, num_frames: int, chunks: int, origin: str) -> list[bytes]:
    arrays = read_trajectory_npz(data, origin)
    if len(arrays.world_to_cam) < num_frames:
        raise CameraPathError(f"{origin} has {len(arrays.world_to_cam)} frames, {num_frames} are asked for")
    size = struct.pack("<qq", arrays.image_height, arrays.image_width)
    parts = []
    for k in range(chunks):
        frames = slice(0 if k == 0 else 1 + CHUNK_FRAMES * k, 1 + CHUNK_FRAMES * (k + 1))
        # + 0.0 turns -0.0 into 0.0: the same cameras, the same bytes.
        poses = (arrays.world_to_cam[frames] + 0.0).astype("<f8").tobytes()
        lenses = (arrays.intrinsics[frames] + 0.0).astype("<f8").tobytes()
        parts.append(_part(b"cameras", size, poses, lenses))
    return parts


def _part(*fields: bytes) -> bytes:
    # Lengths before the fields: no two requests can run together into the same bytes.
    return b"".join(struct.pack("<q", len(field)) + field for field in fields)
