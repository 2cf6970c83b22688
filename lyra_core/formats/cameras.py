"""Cameras in files: Parquet for the catalogue, transforms.json for nerfstudio, text for COLMAP.

Pixel centres are at +0.5 in all three, as in this project: COLMAP's and nerfstudio's principal
points need no shift. The world frame is the seed camera's OpenCV frame (y down) everywhere;
nothing is re-oriented.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lyra_core.errors import CameraPathError, FormatError
from lyra_core.formats.points import MAX_POINTS, surface_points
from lyra_core.geometry.rotation import matrix_to_quat, rigid, unit_quat_to_matrix
from lyra_core.replacing import replacing
from lyra_core.values import CameraPath, Gaussians

# OpenCV camera axes (x right, y down, z forward) to OpenGL's (x right, y up, z backward), and back.
OPENCV_TO_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_SCHEMA_FORMAT = "lyra-worlds cameras 1"


def write_cameras_parquet(path: CameraPath, file: str | Path, fps: float = 16.0) -> None:
    """Write one row a frame: frame, t_s, w2c (16, row-major), K (9, row-major); size and name as
    metadata.

    Raises:
        FormatError: a rate that is not positive.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not fps > 0:
        raise FormatError(f"cameras need a positive rate in frames per second, found {fps}")
    count = len(path)
    metadata = {
        "format": _SCHEMA_FORMAT,
        "image_height": str(path.image_height),
        "image_width": str(path.image_width),
        "fps": repr(float(fps)),
        "name": path.name,
        "conventions": "OpenCV world_to_cam, metres, pixel centres at +0.5, row-major",
    }
    schema = pa.schema(
        [
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("t_s", pa.float64(), nullable=False),
            pa.field("w2c", pa.list_(pa.float64(), 16), nullable=False),
            pa.field("K", pa.list_(pa.float64(), 9), nullable=False),
        ],
        metadata=metadata,
    )
    columns = [
        pa.array(np.arange(count, dtype=np.int32)),
        pa.array(np.arange(count) / fps),
        pa.FixedSizeListArray.from_arrays(pa.array(path.world_to_cam.reshape(-1).numpy()), 16),
        pa.FixedSizeListArray.from_arrays(pa.array(path.intrinsics.reshape(-1).numpy()), 9),
    ]
    with replacing(file) as temporary:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary, compression="zstd")


def read_cameras_parquet(file: str | Path) -> CameraPath:
    """Read what write_cameras_parquet wrote, bit for bit.

    Raises:
        FormatError: missing, not Parquet, other columns, frames that do not count 0, 1, 2, ...
        CameraPathError: rows that are no cameras.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(Path(file), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{file} cannot be read as Parquet: {error}") from error
    missing = [name for name in ("frame", "t_s", "w2c", "K") if name not in table.column_names]
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if missing or "image_height" not in metadata or "image_width" not in metadata:
        raise FormatError(
            f"{file} holds no cameras: wanted columns frame, t_s, w2c, K and the image size as "
            f"metadata, "
            f"found columns {table.column_names} and metadata {sorted(metadata)}"
        )
    try:
        frames = table["frame"].to_numpy()
        flat = [np.asarray(table[name].to_pylist(), np.float64) for name in ("w2c", "K")]
        size = int(metadata["image_height"]), int(metadata["image_width"])
        poses, lenses = flat[0].reshape(-1, 4, 4), flat[1].reshape(-1, 3, 3)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise FormatError(f"{file}: w2c needs 16 numbers a row, K 9: {error}") from error
    if not np.array_equal(frames, np.arange(len(frames))):
        raise FormatError(f"{file}: frames must count 0, 1, 2, ...; found {frames[:8].tolist()}; sort the rows")
    return CameraPath(
        world_to_cam=torch.from_numpy(poses.copy()),
        intrinsics=torch.from_numpy(lenses.copy()),
        image_height=size[0],
        image_width=size[1],
        name=metadata.get("name", "custom"),
    )


def frame_name(frame: int) -> str:
    """Name of the picture of a frame, wherever frames of a video are files."""
    return f"frame_{frame:05d}.jpg"


def write_transforms_json(
    path: CameraPath,
    file: str | Path,
    file_paths: list[str] | None = None,
    *,
    points_file: str | None = None,
    depth_paths: list[str] | None = None,
    video_file: str | None = None,
) -> None:
    """Write nerfstudio's transforms.json: OpenGL camera-to-world, intrinsics once if all frames
    share them.

    Args:
        path: the cameras.
        file: usually `transforms.json` beside a folder of images.
        file_paths: image of each frame, relative to the file. None: `images/frame_00000.jpg`, ..., where the command
            that the file names puts the frames of `video_file`.
        points_file: a PLY of coloured points in the same frame, relative to the file. Where given, the poses keep their
            orientation in nerfstudio too.
        depth_paths: depth of each frame as a 16-bit PNG in thousandths of a unit, relative to the file, or None.
        video_file: the video that holds the frames, relative to the file, where they are no files.

    Raises:
        CameraPathError: a number of image names that is not the number of frames.
    """
    for names in (file_paths, depth_paths):
        if names is not None and len(names) != len(path):
            raise CameraPathError(f"{len(path)} cameras need {len(path)} image names, found {len(names)}")
    images = [f"images/{frame_name(i)}" for i in range(len(path))] if file_paths is None else file_paths
    cam_to_world = (path.cam_to_world @ OPENCV_TO_OPENGL).tolist()
    lenses = [_lens(path.intrinsics[i]) for i in range(len(path))]
    shared = all(lens == lenses[0] for lens in lenses)
    frames = []
    for i, matrix in enumerate(cam_to_world):
        frame: dict[str, object] = {"file_path": images[i]}
        if depth_paths is not None:
            frame["depth_file_path"] = depth_paths[i]
        frame["transform_matrix"] = matrix
        frames.append(frame if shared else {**frame, **lenses[i]})
    document = {
        "camera_model": "OPENCV",
        "w": path.image_width,
        "h": path.image_height,
        **(lenses[0] if shared else {}),
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        **({} if points_file is None else {"orientation_override": "none", "ply_file_path": points_file}),
        **({} if video_file is None else _where_frames_are(video_file)),
        "frames": frames,
    }
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_colmap_text(
    path: CameraPath,
    folder: str | Path,
    gaussians: Gaussians | None = None,
    *,
    image_names: list[str] | None = None,
    max_points: int = MAX_POINTS,
) -> None:
    """Write a COLMAP text model: cameras.txt (PINHOLE), images.txt (world to camera, wxyz),
    points3D.txt.

    Args:
        path: the cameras; frames that share intrinsics share a camera.
        folder: created where missing.
        gaussians: the centres of those that key frames show become points (evenly thinned), or none.
        image_names: of each frame; default frame_00000.jpg and so on.
        max_points: at most so many points.

    Raises:
        CameraPathError: a number of image names that is not the number of frames.
    """
    names = [frame_name(i) for i in range(len(path))] if image_names is None else image_names
    if len(names) != len(path):
        raise CameraPathError(f"{len(path)} cameras need {len(path)} image names, found {len(names)}")
    folder = Path(folder)
    lens_ids: dict[tuple[float, ...], int] = {}
    images = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of 2D points (none)"]
    quats = matrix_to_quat(path.world_to_cam[:, :3, :3])
    for i, name in enumerate(names):
        lens = tuple(_lens(path.intrinsics[i]).values())
        camera = lens_ids.setdefault(lens, len(lens_ids) + 1)
        pose = _numbers([*quats[i].tolist(), *path.world_to_cam[i, :3, 3].tolist()])
        images += [f"{i + 1} {pose} {camera} {name}", ""]
    cameras = ["# CAMERA_ID PINHOLE WIDTH HEIGHT FX FY CX CY (pixel centres at +0.5)"]
    cameras += [
        f"{camera} PINHOLE {path.image_width} {path.image_height} {_numbers(lens)}" for lens, camera in lens_ids.items()
    ]
    points = ["# POINT3D_ID X Y Z R G B ERROR (no tracks)"]
    points += _point_lines(gaussians, max_points)
    for file, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        with replacing(folder / f"{file}.txt") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_colmap_text(folder: str | Path) -> CameraPath:
    """Read the cameras of a COLMAP text model (PINHOLE or SIMPLE_PINHOLE), in order of image id.

    Raises:
        FormatError: files missing or malformed, other camera models, images of several sizes.
        CameraPathError: images that are no cameras.
    """
    folder = Path(folder)
    lenses: dict[str, tuple[tuple[int, int], list[float]]] = {}
    rows: list[tuple[int, list[float], str]] = []
    try:
        for line in _lines(folder / "cameras.txt"):
            camera, model, *numbers = line.split()
            lenses[camera] = (
                (int(numbers[1]), int(numbers[0])),
                _pinhole(model, numbers[2:], folder),
            )
        # Two lines an image; the second, of 2D points, may be empty.
        for line in _lines(folder / "images.txt", keep_empty=True)[::2]:
            if line:
                image, *numbers, camera, _ = line.split(maxsplit=9)
                rows.append((int(image), [float(v) for v in numbers], camera))
        rows.sort(key=lambda row: row[0])
        used = [lenses[camera] for _, _, camera in rows]
    except (ValueError, IndexError, KeyError) as error:
        raise FormatError(f"{folder} holds a malformed COLMAP text model: {error}") from error
    sizes = {size for size, _ in used}
    if len(sizes) != 1:
        raise FormatError(f"{folder}: a camera path needs images of one size, found {sorted(sizes)}")
    pose = torch.tensor([numbers for _, numbers, _ in rows], dtype=torch.float64)
    intrinsics = torch.zeros(len(rows), 3, 3, dtype=torch.float64)
    values = torch.tensor([lens for _, lens in used], dtype=torch.float64)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = values[:, 0], values[:, 1]
    intrinsics[:, :2, 2], intrinsics[:, 2, 2] = values[:, 2:], 1.0
    ((height, width),) = sizes
    return CameraPath(
        world_to_cam=rigid(unit_quat_to_matrix(pose[:, :4]), pose[:, 4:]),
        intrinsics=intrinsics,
        image_height=height,
        image_width=width,
        name=folder.name,
    )


def _where_frames_are(video: str) -> dict[str, str]:
    """Keys that nerfstudio passes over."""
    return {
        "video_path": video,
        "extract_frames": f"mkdir -p images && ffmpeg -i {video} -start_number 0 -qscale:v 2 images/frame_%05d.jpg",
    }


def _lens(intrinsics: Tensor) -> dict[str, float]:
    return {
        "fl_x": float(intrinsics[0, 0]),
        "fl_y": float(intrinsics[1, 1]),
        "cx": float(intrinsics[0, 2]),
        "cy": float(intrinsics[1, 2]),
    }


def _numbers(values: list[float] | tuple[float, ...]) -> str:
    # repr is the shortest text that reads back to the same float64.
    return " ".join(repr(float(value)) for value in values)


def _point_lines(gaussians: Gaussians | None, max_points: int) -> list[str]:
    if gaussians is None:
        return []
    means, colors = surface_points(gaussians, max_points)
    return [
        f"{i + 1} {_numbers(mean)} {color[0]} {color[1]} {color[2]} 0"
        for i, (mean, color) in enumerate(zip(means.tolist(), colors.tolist(), strict=True))
    ]


def _lines(file: Path, *, keep_empty: bool = False) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{file} cannot be read: {error}") from error
    return [line for line in lines if not line.startswith("#") and (line or keep_empty)]


def _pinhole(model: str, numbers: list[str], folder: Path) -> list[float]:
    values = [float(number) for number in numbers]
    if model == "SIMPLE_PINHOLE" and len(values) == 3:
        return [values[0], *values]
    if model == "PINHOLE" and len(values) == 4:
        return values
    raise FormatError(f"{folder}: cameras must be PINHOLE, found {model}; undistort the images first")
