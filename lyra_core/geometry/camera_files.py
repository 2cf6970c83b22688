"""Camera files, read whole and checked when they are first named: what is wrong is told before anything starts.

Five layouts are read (docs/conventions.md says how each is understood):

trajectory.npz     `w2c` [t 4 4] and `intrinsics` [t 3 3] (or [3 3]), `image_height`, `image_width`: OpenCV, metres
cameras.parquet    as this project writes beside each world
transforms.json    nerfstudio's, as this project writes it or as a capture: OpenGL camera-to-world
camera_path.json   nerfstudio's, as its viewer exports it: OpenGL camera-to-world and a vertical field of view
key poses          .json, a list or {"key_poses": [...]}: a few poses to pass through

No torch here: planning reads these files, too.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_json import read_camera_json
from lyra_core.geometry.camera_list import MAX_CAMERAS, CameraList, KeyPose, checked_cameras
from lyra_core.public_uri import public_uri

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet

SUFFIXES = (".npz", ".json", ".parquet")
# A trajectory of 100,000 frames is 16 MB; more is not a camera path.
MAX_TRAJECTORY_BYTES = 64 * 1024 * 1024
_ARRAYS = ("w2c", "intrinsics", "image_height", "image_width")
_COLUMNS = {"w2c": 16, "K": 9}


def is_camera_file(name: str | Path) -> bool:
    """Whether a camera path's name is that of a file rather than a preset."""
    return str(name).lower().endswith(SUFFIXES)  # no Path: planning asks for every row of a manifest


def read_camera_bytes(path: str | Path) -> bytes:
    """A camera file's bytes, refused above 64 MiB.

    Raises:
        CameraPathError: a URL, a folder, a pipe or a device, unreadable, or too large.
    """
    if "://" in str(path):
        raise CameraPathError(
            f"camera files are read from this machine, found the URL {public_uri(str(path))}; download it"
        )
    path = Path(os.path.expanduser(path))  # noqa: PTH111  pathlib raises where there is no home
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read without end
            raise CameraPathError(f"{path} is no file that can be read as a whole; name a camera file")
        if status.st_size > MAX_TRAJECTORY_BYTES:
            raise CameraPathError(f"{path} is {status.st_size} bytes; a trajectory is at most {MAX_TRAJECTORY_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CameraPathError(f"trajectory {path} cannot be read: {reason}") from error


def read_cameras(data: bytes, origin: str = "trajectory") -> CameraList | list[KeyPose]:
    """What a camera file holds, of whichever layout, completely checked.

    Args:
        data: the file's bytes.
        origin: the file's name, for errors.

    Raises:
        CameraPathError: empty, none of the layouts, malformed, not finite or not rigid.
    """
    if not data:
        raise CameraPathError(f"{origin} is empty; it needs a .npz of poses or .json key poses")
    if data[:4] == b"PK\x03\x04":
        return _read_npz(data, origin)
    if data[:4] == b"PAR1":
        return _read_parquet(data, origin)
    return read_camera_json(data, origin)


def _read_npz(data: bytes, origin: str) -> CameraList:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > MAX_TRAJECTORY_BYTES:
                raise CameraPathError(f"{origin} unpacks to {unpacked} bytes; at most {MAX_TRAJECTORY_BYTES} are read")
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [name for name in _ARRAYS if name not in held]
            if missing:
                raise CameraPathError(
                    f"{origin} lacks {', '.join(missing)}; it needs {', '.join(_ARRAYS)}, found {held[:20]}"
                )
            arrays = {name: _read_array(archive.read(f"{name}.npy")) for name in _ARRAYS}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError) as error:
        raise CameraPathError(
            f"{origin} is not a plain .npz of arrays: {error}; pickled objects are refused, save with numpy.savez"
        ) from error
    try:
        w2c = np.asarray(arrays["w2c"], np.float64)
        intrinsics = np.asarray(arrays["intrinsics"], np.float64)
        height, width = int(arrays["image_height"].item()), int(arrays["image_width"].item())
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
    listed = CameraList(world_to_cam=w2c, intrinsics=intrinsics, image_height=height, image_width=width)
    return checked_cameras(listed, origin)


def _read_array(data: bytes) -> np.ndarray:
    """One .npy: its header is believed only as far as there are bytes behind it, so that nothing is allocated for it.

    Raises:
        ValueError: no .npy, pickled objects, or a header that promises other than it has.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, by_columns, kind = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, by_columns, kind = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"an array of format version {version}")
    if kind.hasobject:
        raise ValueError("an array of Python objects")
    size = kind.itemsize * math.prod(int(length) for length in shape)  # Python's integers: numpy's would wrap around
    stored = len(data) - stream.tell()
    if size > stored or min(shape, default=0) < 0:
        raise ValueError(f"a header that promises {size} bytes where {stored} are stored")
    values = np.frombuffer(stream.read(size), dtype=kind)
    return values.reshape(shape, order="F" if by_columns else "C").copy()


def _read_parquet(data: bytes, origin: str) -> CameraList:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > MAX_CAMERAS:
            raise CameraPathError(f"{origin} has {file.metadata.num_rows} rows; at most {MAX_CAMERAS} cameras are read")
        schema = file.schema_arrow
        metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        missing = [name for name in ("frame", *_COLUMNS) if name not in schema.names]
        if missing or not {"image_height", "image_width"} <= set(metadata):
            raise CameraPathError(
                f"{origin} holds no cameras: wanted columns frame, w2c, K and the image size as metadata (as in "
                f"cameras.parquet of a world), found columns {schema.names} and metadata {sorted(metadata)}"
            )
        _require_values(file, origin)
        table = file.read(columns=["frame", *_COLUMNS])
        frames = table["frame"].to_numpy()
        poses = _matrix_column(table, "w2c", 4)
        lenses = _matrix_column(table, "K", 3)
        height, width = int(metadata["image_height"]), int(metadata["image_width"])
    except (ValueError, TypeError, OSError, pa.ArrowException) as error:
        raise CameraPathError(f"{origin} cannot be read as the cameras of a world: {error}") from error
    if not np.array_equal(frames, np.arange(len(frames))):
        raise CameraPathError(f"{origin}: frames must count 0, 1, 2, ...; found {frames[:8].tolist()}; sort the rows")
    listed = CameraList(world_to_cam=poses, intrinsics=lenses, image_height=height, image_width=width)
    return checked_cameras(listed, origin)


def _require_values(file: pa.parquet.ParquetFile, origin: str) -> None:
    """Refuse columns that would unpack to more than rows of cameras hold."""
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        for index in range(rows.num_columns):
            column = rows.column(index)
            width = _COLUMNS.get(column.path_in_schema.split(".")[0])
            if width is not None and column.num_values != width * rows.num_rows:
                raise CameraPathError(
                    f"{origin}: w2c needs 16 numbers a row, K 9; column {column.path_in_schema} has "
                    f"{column.num_values} in {rows.num_rows} rows"
                )


def _matrix_column(table: pa.Table, name: str, side: int) -> np.ndarray:
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.array(flat, np.float64).reshape(-1, side, side)
