"""Worlds as training data: a torch data set of frames with intrinsics and poses, straight from the catalog.

python examples/train_on_worlds.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from catalogs.query import query
from lyra_core.formats.cameras import read_cameras_parquet
from lyra_core.formats.clip import read_video
from lyra_core.formats.store import open_store

WORLDS = "./worlds"
WHERE = "accepted"
VIEWS = 4  # per world
BATCH = 2


class WorldViews(Dataset[dict[str, Tensor]]):
    """Some frames of each world: image [v 3 h w] in 0..1, K [v 3 3], world_to_cam [v 4 4]."""

    def __init__(self, worlds: str, where: str = WHERE, views: int = VIEWS) -> None:
        self.store, self.views = open_store(worlds), views
        sql = f"SELECT video_uri, cameras_uri, num_frames FROM worlds WHERE {where} ORDER BY world_id"
        self.rows = query(self.store, sql).to_pylist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One world."""
        row = self.rows[index]
        with tempfile.TemporaryDirectory() as folder:
            video, parquet = Path(folder, "video.mp4"), Path(folder, "cameras.parquet")
            self.store.get_file(row["video_uri"], video)
            self.store.get_file(row["cameras_uri"], parquet)
            frames, cameras = read_video(video), read_cameras_parquet(parquet)
        chosen = torch.linspace(0, row["num_frames"] - 1, self.views).round().long()
        image = frames[chosen].permute(0, 3, 1, 2) / 255
        return {"image": image, "K": cameras.intrinsics[chosen], "world_to_cam": cameras.world_to_cam[chosen]}


def main(worlds: str = WORLDS) -> dict[str, Tensor]:
    """The first batch; all worlds of a batch have one size, so use one recipe."""
    batch = next(iter(DataLoader(WorldViews(worlds), batch_size=BATCH)))
    print({name: tuple(tensor.shape) for name, tensor in batch.items()})
    return batch


if __name__ == "__main__":
    main()
