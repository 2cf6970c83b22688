"""Worlds as a LeRobot data set (format v3.0): an episode for each world, for readers of robot data.

Layout as documented for LeRobotDataset v3.0 and as lerobot 0.6.1 reads it: meta/info.json, meta/stats.json,
meta/tasks.parquet, meta/episodes, data and videos in chunks of 1000 files.

The state of a frame is its camera's pose (OpenCV camera to world, 3x4 by rows, in the world's units), its action the
pose of the next frame, the last frame's own at the end: the camera is the robot. Depth is left out: LeRobot keeps it as
a 12-bit video, coarser than what worlds have.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lyra_core.errors import FormatError
from lyra_core.formats.clip import probe_video, read_frames, read_video, write_mp4
from lyra_core.values import CameraPath

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "v3.0"
CAMERA = "observation.images.camera"
_CHUNK = 1000  # files in a folder
_STATS_EVERY = 16  # frames of a video that image statistics are made from
_POSE = [f"c2w_{row}{column}" for row in range(3) for column in range(4)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One world.

    Attributes:
        task: what the camera does, in words.
        video: its file. H.264 in .mp4 is copied as it is, anything else is encoded.
        cameras: one a frame.
        world_id: kept in meta/episodes.
        seed_sha256: of its photograph, kept there too: splits must not part its worlds.
        meters_per_unit: None where lengths are relative.
    """

    task: str
    video: Path
    cameras: CameraPath
    world_id: str
    seed_sha256: str | None = None
    meters_per_unit: float | None = None


def write_lerobot(episodes: Iterable[Episode], folder: str | Path) -> int:
    """Write a data set into a folder that is empty or does not exist; returns the number of episodes.

    Raises:
        FormatError: no episodes, or videos of several sizes or rates, or one with other frames than cameras.
    """
    folder = Path(folder)
    tasks: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    shape: tuple[int, int, float] | None = None
    stats = {name: _Statistics() for name in ("observation.state", "action", "observation.intrinsics", CAMERA)}
    total = 0
    for number, episode in enumerate(episodes):
        video = _file(folder, f"videos/{CAMERA}", number, "mp4")
        found = _place_video(episode, video)
        if shape is not None and found != shape:
            raise FormatError(
                f"a LeRobot data set has videos of one size and rate: wanted {shape} (height, width, frames per "
                f"second), found {found} in world {episode.world_id}; choose worlds of one recipe"
            )
        shape = found
        count, task = len(episode.cameras), tasks.setdefault(episode.task, len(tasks))
        columns = _columns(episode, number, total, task, shape[2])
        _write(columns, _file(folder, "data", number, "parquet"))
        for name, values in columns.items():
            if name in stats:
                stats[name].add(values)
        for _, image in read_frames(video, range(0, count, _STATS_EVERY)):
            stats[CAMERA].add(image.reshape(-1, 3) / 255)
        chunk, file = divmod(number, _CHUNK)
        rows.append(
            {
                "episode_index": number, "tasks": [episode.task], "length": count,
                "dataset_from_index": total, "dataset_to_index": total + count,
                "data/chunk_index": chunk, "data/file_index": file,
                f"videos/{CAMERA}/chunk_index": chunk, f"videos/{CAMERA}/file_index": file,
                f"videos/{CAMERA}/from_timestamp": 0.0, f"videos/{CAMERA}/to_timestamp": count / shape[2],
                "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
                "world_id": episode.world_id, "seed_sha256": episode.seed_sha256,
                "meters_per_unit": episode.meters_per_unit,
            }
        )  # fmt: skip
        total += count
    if shape is None:
        raise FormatError("a LeRobot data set needs at least one world, found none")
    _write_meta(folder, rows, tasks, shape)
    (folder / "meta" / "stats.json").write_text(
        json.dumps({name: found.summary(is_image=name == CAMERA) for name, found in stats.items()}, indent=1) + "\n"
    )
    return len(rows)


def _file(folder: Path, kind: str, number: int, ending: str) -> Path:
    chunk, file = divmod(number, _CHUNK)
    path = folder / kind / f"chunk-{chunk:03d}" / f"file-{file:03d}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _place_video(episode: Episode, target: Path) -> tuple[int, int, float]:
    found = probe_video(episode.video)
    if found.num_frames != len(episode.cameras):
        raise FormatError(
            f"world {episode.world_id}: wanted one frame for each of {len(episode.cameras)} cameras, found "
            f"{found.num_frames}; lyra verify tells whether its files are whole"
        )
    if found.codec == "h264" and episode.video.suffix == ".mp4":
        shutil.copyfile(episode.video, target)
    else:
        write_mp4(read_video(episode.video), target, found.fps)
    return found.height, found.width, found.fps


def _columns(episode: Episode, number: int, start: int, task: int, fps: float) -> dict[str, np.ndarray]:
    poses = episode.cameras.cam_to_world[:, :3].flatten(1).float().numpy()
    count = len(poses)
    frames = np.arange(count, dtype=np.int64)
    return {
        "observation.state": poses,
        "action": np.concatenate([poses[1:], poses[-1:]]),
        "observation.intrinsics": episode.cameras.intrinsics.flatten(1).float().numpy(),
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(count, number, np.int64),
        "index": start + frames,
        "task_index": np.full(count, task, np.int64),
    }


def _write(columns: dict[str, np.ndarray], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays: dict[str, pa.Array] = {
        name: pa.array(values)
        if values.ndim == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays), file)


def _write_meta(folder: Path, rows: list[dict[str, Any]], tasks: dict[str, int], shape: tuple[int, int, float]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    height, width, fps = shape
    meta = folder / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
    # The reader opens this file with pandas and looks tasks up by their index, which this note makes of the column.
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, kind, numpy_type in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    note = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), meta / "tasks.parquet")
    scalars = {
        "timestamp": "float32",
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
    }
    video = {
        "video.fps": fps, "video.height": height, "video.width": width, "video.channels": 3, "video.codec": "h264",
        "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "has_audio": False,
    }  # fmt: skip
    info = {
        "codebase_version": VERSION,
        "robot_type": "camera",
        "total_episodes": len(rows),
        "total_frames": rows[-1]["dataset_to_index"],
        "total_tasks": len(tasks),
        "chunks_size": _CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": round(fps) if fps == round(fps) else fps,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            CAMERA: {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": video,
            },
            "observation.state": {"dtype": "float32", "shape": [12], "names": _POSE},
            "action": {"dtype": "float32", "shape": [12], "names": _POSE},
            "observation.intrinsics": {
                "dtype": "float32", "shape": [9], "names": [f"K_{i}{j}" for i in range(3) for j in range(3)],
            },
            **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in scalars.items()},
        },
    }  # fmt: skip
    (meta / "info.json").write_text(json.dumps(info, indent=1) + "\n")


class _Statistics:
    """Running minimum, maximum, mean and deviation of columns, in float64."""

    def __init__(self) -> None:
        self.count, self.low, self.high, self.sum, self.squares = 0, *(np.zeros(0) for _ in range(4))

    def add(self, values: Float[np.ndarray, "n k"]) -> None:
        values = values.astype(np.float64)
        if not self.count:
            self.low, self.high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
            self.sum = self.squares = np.zeros(values.shape[1])
        self.count += len(values)
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        self.sum, self.squares = self.sum + values.sum(0), self.squares + (values * values).sum(0)

    def summary(self, *, is_image: bool) -> dict[str, Any]:
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean * mean, 0.0))
        found = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        shaped = {name: (v.reshape(-1, 1, 1) if is_image else v).tolist() for name, v in found.items()}
        return {**shaped, "count": [self.count]}
