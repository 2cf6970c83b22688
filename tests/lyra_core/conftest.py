"""Where golden vectors are read from; small shared textures and clips; one thread in the rooms of training."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from lyra_core.finetuning.clip_export import export_clip
from lyra_core.procedural.atlas import build_atlas
from lyra_core.values import CameraPath, VideoClip

REPOSITORY_GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ONE_THREAD_ROOMS = {"procedural", "evaluation", "finetuning", "training"}


@pytest.fixture(scope="session")
def released_dir() -> Path:
    """Names and shapes of the released files: they belong to the full-size networks and to no folder of vectors."""
    return REPOSITORY_GOLDEN


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of golden vectors: LYRA_GOLDEN_DIR, or the vectors that travel with the tests."""
    return Path(os.environ.get("LYRA_GOLDEN_DIR", REPOSITORY_GOLDEN))


@pytest.fixture(autouse=True)
def one_thread(request):
    """In rooms that train and render small things: two spinning pools on a busy machine cost more than they give."""
    if not ONE_THREAD_ROOMS & set(request.path.parts):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def atlas():
    return build_atlas("train", per_kind=1, size=32)


def wall_clip(shift: float = 0.04, num_frames: int = 17, height: int = 48, width: int = 64) -> VideoClip:
    """A camera that moves along a coloured wall, with exact depth."""
    cam_to_world = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    cam_to_world[:, 0, 3] = shift * torch.arange(num_frames) + 2.0  # somewhere in the world
    K = torch.tensor([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]], dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([(x - K[0, 2]) / 50, (y - K[1, 2]) / 50, torch.ones_like(x)], -1)
    depth = 4.0 / (1 - 0.3 * rays[..., 0])
    points = rays * depth[..., None]
    frames = torch.stack(
        [torch.stack([torch.sin(3 * (points[..., 0] + shift * t)), torch.cos(2 * points[..., 1]), depth / 9], -1)
         for t in range(num_frames)]
    )  # fmt: skip
    cameras = CameraPath(
        world_to_cam=torch.linalg.inv(cam_to_world),
        intrinsics=K.repeat(num_frames, 1, 1),
        image_height=height,
        image_width=width,
    )
    pixels = ((frames * 0.5 + 0.5).clamp(0, 1) * 255).to(torch.uint8)
    return VideoClip(frames=pixels, cameras=cameras, depth_m=depth.expand(num_frames, -1, -1).float().clone())


@pytest.fixture(scope="session")
def wall():
    """Makes clips along a wall."""
    return wall_clip


@pytest.fixture(scope="session")
def clip_data(tmp_path_factory):
    """A folder of two clips of 17 frames, one with its depth as EXR."""
    folder = tmp_path_factory.mktemp("clips")
    export_clip(wall_clip(), folder, "slow", {0: "a wall", 9: "the same wall"})
    export_clip(wall_clip(0.08), folder, "fast", {0: "a wall passing by"}, depth_format="exr")
    return folder


@pytest.fixture
def own_data(clip_data, tmp_path):
    """The same folder, to be damaged."""
    return Path(shutil.copytree(clip_data, tmp_path / "clips"))
