"""A small catalog with real files: four worlds of two photographs, frames that show their number, a wall of splats."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from catalogs.commit import commit
from catalogs.compaction import compact
from lyra_core.formats.cameras import write_cameras_parquet
from lyra_core.formats.clip import write_mp4
from lyra_core.formats.store import open_store
from lyra_core.geometry.camera import intrinsics_from_hfov
from lyra_core.records import WorldRecord
from lyra_core.values import CameraPath, Gaussians

HEIGHT, WIDTH, FRAMES = 32, 48, 60
WALL_Z = 3.0


def cameras() -> CameraPath:
    """One step of 1 cm to the right a frame."""
    pose = torch.eye(4, dtype=torch.float64).repeat(FRAMES, 1, 1)
    pose[:, 0, 3] = -0.01 * torch.arange(FRAMES)
    K = intrinsics_from_hfov(60.0, HEIGHT, WIDTH).repeat(FRAMES, 1, 1)
    return CameraPath(world_to_cam=pose, intrinsics=K, image_height=HEIGHT, image_width=WIDTH)


def wall() -> Gaussians:
    y, x = torch.meshgrid(torch.linspace(-3, 3, 41), torch.linspace(-4, 4, 55), indexing="ij")
    count = x.numel()
    return Gaussians(
        means=torch.stack([x.flatten(), y.flatten(), torch.full((count,), WALL_Z)], 1),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=torch.tensor([0.12, 0.12, 0.001]).repeat(count, 1),
        opacities=torch.full((count,), 0.95),
        sh=torch.ones(count, 1, 3),
    )


@pytest.fixture(scope="session")
def worlds(tmp_path_factory) -> str:
    """Where they lie."""
    root, files = tmp_path_factory.mktemp("worlds"), tmp_path_factory.mktemp("files")
    store = open_store(root, fsync=False)
    write_cameras_parquet(cameras(), files / "cameras.parquet")
    wall().save_ply(files / "gaussians.ply")
    for number, digit in enumerate("abcd"):
        # Frame i of world w is grey of 3 i + 10 w.
        grey = (torch.arange(FRAMES) * 3 + 10 * number).to(torch.uint8)
        write_mp4(grey[:, None, None, None].expand(-1, HEIGHT, WIDTH, 3), files / "video.mp4", 16.0, preset="ultrafast")
        folder = f"worlds/{digit * 2}/{digit * 32}/{'0' * 12}"
        stored = {
            role: store.put_file(f"{folder}/{name}", files / name)
            for role, name in (
                ("video", "video.mp4"), ("cameras", "cameras.parquet"), ("ply", "gaussians.ply"),
            )
        }  # fmt: skip
        record = WorldRecord(
            world_id=digit * 32, name=f"world {digit}", accepted=digit != "d", num_frames=FRAMES,
            width=WIDTH, height=HEIGHT, seed_sha256=hashlib.sha256(bytes([number // 2])).hexdigest(),
            psnr_db=20.0 + number, metric_scale_source="relative", scale_confidence=0.1,
            video_uri=stored["video"].key, cameras_uri=stored["cameras"].key, ply_uri=stored["ply"].key,
        )  # fmt: skip
        commit(store, record)
    compact(store)
    return str(root)


@pytest.fixture
def away(worlds, tmp_path) -> str:
    """The same in a store that is no folder."""
    root = f"memory://{tmp_path.name}-worlds"
    store = open_store(root)
    for file in Path(worlds).rglob("*"):
        if file.is_file():
            store.put_file(file.relative_to(worlds).as_posix(), file)
    return root
