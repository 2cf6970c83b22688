"""What cameras a world asks for: preset names, chunk lengths and the bytes that identify a request.

No torch here: planning a batch computes thousands of world ids and starts nothing. Ids chain over
chunks, so the bytes of chunk k must not change when a longer path is asked for, where the path
allows it: the pose of a steady preset at frame i does not depend on the number of frames, that of
a closed one does. Bytes identify the request, not the poses: presets are scaled by the seed's
depth later.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_core.canonical_json import canonical_json
from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_files import CameraList, is_camera_file, read_camera_bytes, read_cameras
from lyra_core.geometry.camera_json import load_json
from lyra_core.native import CHUNK_FRAMES

# Raise when a preset's poses change: worlds made with the old poses keep their ids.
PRESETS_VERSION = 1


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
        name: a preset (`PRESETS`), `lyra2/<preset>/<direction>`, or the path of a camera file
            (.npz, .json, .parquet).
        num_frames: 1 + 80 k.
        strength: 1 is the preset's own pace; ignored by files.
    """

    name: str
    num_frames: int
    strength: float = 1.0

    @property
    def is_file(self) -> bool:
        """Whether the name is a camera file's path."""
        return self.name not in PRESETS and is_camera_file(self.name)


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
    if os.path.isdir(name):  # noqa: PTH112  False also for a name that no file can have
        hint = "; a folder is none, name a file in it: transforms.json beside a world's colmap has the same cameras"
    raise CameraPathError(
        f"unknown camera path {name!r}: wanted one of {', '.join(PRESETS)}, "
        f"{REFERENCE_PREFIX}/<preset>/<direction>, or a camera file (.npz, .json, .parquet){hint}"
    )


def split_reference_name(name: str) -> tuple[str, str] | None:
    """Preset and direction of a `lyra2/<preset>/<direction>` name, or None."""
    parts = name.split("/")
    known = len(parts) == 3 and parts[0] == REFERENCE_PREFIX
    if known and parts[1] in REFERENCE_PRESETS and parts[2] in REFERENCE_DIRECTIONS:
        return parts[1], parts[2]
    return None


def num_chunks(num_frames: int, chunk_frames: int = CHUNK_FRAMES) -> int:
    """Chunks after the seed frame, of 80 frames where a model does not say otherwise.

    Raises:
        CameraPathError: a count that is not 1 + 80 k with k >= 1; the message names the nearest.
    """
    chunks, rest = divmod(num_frames - 1, chunk_frames)
    if rest or chunks < 1:
        near = 1 + chunk_frames * max(1, round((num_frames - 1) / chunk_frames))
        first = ", ".join(str(1 + chunk_frames * k) for k in (1, 2, 3))
        raise CameraPathError(
            f"a camera path needs 1 + {chunk_frames} k frames ({first}, ...): the seed and whole chunks; "
            f"found {num_frames}, the nearest is {near}"
        )
    return chunks


def request_digest_parts(
    name_or_file: str | Path, num_frames: int, *, strength: float = 1.0, chunk_frames: int = CHUNK_FRAMES
) -> list[bytes]:
    """For each chunk, the canonical bytes of the cameras requested for it (chunk 0 includes frame
    0).

    Steady presets and files with a camera a frame share the parts of a common prefix; closed presets, key
    poses and camera_path.json (which are spread over all frames) do not. A file is read whole and checked.

    Raises:
        CameraPathError: an unknown preset, a count that is not 1 + 80 k, a file that cannot be
            read, holds no cameras or is shorter.
    """
    chunks = num_chunks(num_frames, chunk_frames)
    request = CameraPathRequest(name=str(name_or_file), num_frames=num_frames, strength=strength)
    if request.is_file:
        data, origin = read_camera_bytes(name_or_file), str(name_or_file)
        cameras = read_cameras(data, origin)
        if isinstance(cameras, list):
            whole = hashlib.sha256(canonical_json(load_json(data, origin), origin).encode()).digest()
            return [_part(b"keyposes", whole, struct.pack("<qq", num_frames, k)) for k in range(chunks)]
        return _file_parts(cameras, num_frames, chunk_frames, origin)
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


def cameras_digest(parts: Sequence[bytes | str]) -> str:
    """SHA-256 over the cameras requested for all chunks, hex."""
    return hashlib.sha256(b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)).hexdigest()


def _file_parts(cameras: CameraList, num_frames: int, chunk_frames: int, origin: str) -> list[bytes]:
    """One part a chunk that covers everything read from the file for it."""
    chunks = num_chunks(num_frames, chunk_frames)
    # + 0.0 turns -0.0 into 0.0: the same cameras, the same bytes.
    poses = (cameras.world_to_cam + 0.0).astype("<f8")
    if cameras.intrinsics is not None:
        kind, lenses = b"cameras", (cameras.intrinsics + 0.0).astype("<f8")
        size = struct.pack("<qq", cameras.image_height, cameras.image_width)
    else:
        kind = b"cameras of fields of view"
        lenses = (poses[:, 0, :0] if cameras.fov_deg is None else cameras.fov_deg[:, None] + 0.0).astype("<f8")
        size = cameras.fov_axis.encode()
    if cameras.is_spread:
        whole = hashlib.sha256(_part(size, poses.tobytes(), lenses.tobytes())).digest()
        return [_part(b"spread cameras", whole, struct.pack("<qq", num_frames, k)) for k in range(chunks)]
    require_frames(len(poses), num_frames, origin, chunk_frames)
    parts = []
    for k in range(chunks):
        frames = slice(0 if k == 0 else 1 + chunk_frames * k, 1 + chunk_frames * (k + 1))
        parts.append(_part(kind, size, poses[frames].tobytes(), lenses[frames].tobytes()))
    return parts


def require_frames(held: int, num_frames: int, origin: str, chunk_frames: int = CHUNK_FRAMES) -> None:
    """Refuse a file with a camera a frame that is too short; a longer one is cut.

    Raises:
        CameraPathError: the message names a number of frames that the file has.
    """
    if held < num_frames:
        most = 1 + chunk_frames * ((held - 1) // chunk_frames)
        fits = f"ask for {most} at most" if most > 1 else f"a world has at least {1 + chunk_frames}"
        raise CameraPathError(f"{origin} has {held} frames, {num_frames} are asked for; {fits}, or extend the file")


def _part(*fields: bytes) -> bytes:
    # Lengths before the fields: no two requests can run together into the same bytes.
    return b"".join(struct.pack("<q", len(field)) + field for field in fields)
