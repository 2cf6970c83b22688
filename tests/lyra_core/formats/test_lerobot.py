"""LeRobot data sets: every file by its documented layout; opened by lerobot itself where a Python 3.12 has it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lyra_core.errors import FormatError
from lyra_core.formats.clip import read_video, write_lossless, write_mp4
from lyra_core.formats.lerobot import CAMERA, Episode, write_lerobot
from lyra_core.geometry.camera import intrinsics_from_hfov
from lyra_core.values import CameraPath

OPENED_BY_LEROBOT = """
import sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = LeRobotDataset("local/worlds", root=sys.argv[1], video_backend="pyav")
item = data[4]
print(data.num_episodes, data.num_frames, data.fps, tuple(item["observation.images.camera"].shape), item["task"])
print(item["episode_index"].item(), item["frame_index"].item(), round(item["action"][3].item(), 3))
"""


def episode(
    folder: Path, name: str, count: int, *, height: int = 32, lossless: bool = False, task: str = ""
) -> Episode:
    frames = torch.randint(0, 255, (count, height, 48, 3), dtype=torch.uint8)
    video = folder / f"{name}.{'mkv' if lossless else 'mp4'}"
    (write_lossless if lossless else write_mp4)(frames, video, 16.0)
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    pose[:, 0, 3] = -torch.arange(count)
    cameras = CameraPath(
        world_to_cam=pose,
        intrinsics=intrinsics_from_hfov(60.0, height, 48).repeat(count, 1, 1),
        image_height=height,
        image_width=48,
    )
    return Episode(task=task or f"move {name}", video=video, cameras=cameras, world_id=name * 32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    files = tmp_path_factory.mktemp("files")
    episodes = [episode(files, "a", 3), episode(files, "b", 5, lossless=True), episode(files, "c", 2, task="move a")]
    folder = files / "set"
    assert write_lerobot(episodes, folder) == 3
    return folder, episodes


def test_info_describes_what_is_there(written):
    folder, _ = written
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 16, 3, 10)
    assert info["features"][CAMERA]["shape"] == [32, 48, 3]
    assert info["splits"] == {"train": "0:3"}
    table = pq.read_table(folder / info["data_path"].format(chunk_index=0, file_index=1))
    assert set(table.column_names) == set(info["features"]) - {CAMERA}


def test_poses_are_states_and_next_poses_actions(written):
    folder, episodes = written
    table = pq.read_table(folder / "data" / "chunk-000" / "file-001.parquet")
    states, actions = (np.array(table[name].to_pylist()) for name in ("observation.state", "action"))
    assert np.allclose(states, episodes[1].cameras.cam_to_world[:, :3].flatten(1))
    assert np.allclose(actions[:-1], states[1:])
    assert np.allclose(actions[-1], states[-1])
    assert table["index"].to_pylist() == [3, 4, 5, 6, 7]
    assert table["timestamp"].to_pylist() == pytest.approx([i / 16 for i in range(5)])


def test_episodes_and_tasks_refer_to_each_other(written):
    folder, _ = written
    rows = pq.read_table(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    bounds = [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows]
    assert bounds == [(0, 3), (3, 8), (8, 10)]
    tasks = pq.read_table(folder / "meta" / "tasks.parquet")
    assert tasks["task"].to_pylist() == ["move a", "move b"]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    last = pq.read_table(folder / "data" / "chunk-000" / "file-002.parquet")
    assert last["task_index"].to_pylist() == [0, 0]
    stats = json.loads((folder / "meta" / "stats.json").read_text())
    assert stats["observation.state"]["max"][3] == 4.0
    assert np.array(stats[CAMERA]["mean"]).shape == (3, 1, 1)


def test_a_video_is_copied_where_it_can_be(written):
    folder, episodes = written
    videos = folder / "videos" / CAMERA / "chunk-000"
    assert (videos / "file-000.mp4").read_bytes() == episodes[0].video.read_bytes()
    assert read_video(videos / "file-001.mp4").shape == (5, 32, 48, 3)


def test_what_does_not_fit_together_is_refused(tmp_path):
    with pytest.raises(FormatError, match="one size and rate"):
        write_lerobot([episode(tmp_path, "a", 2), episode(tmp_path, "b", 2, height=64)], tmp_path / "set")
    with pytest.raises(FormatError, match="at least one world"):
        write_lerobot([], tmp_path / "none")


@pytest.mark.slow
def test_lerobot_opens_it(written):
    python = os.environ.get("LEROBOT_PYTHON")
    if not python:
        pytest.skip("set LEROBOT_PYTHON to the python (3.12) of an environment with lerobot[dataset]==0.6.1")
    command = [python, "-c", OPENED_BY_LEROBOT, str(written[0])]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.splitlines()[-2:] == ["3 10 16 (3, 32, 48) move b", "1 1 2.0"]
