"""Where golden vectors are read from; small shared textures and clips; one thread in the rooms of training."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lyra_core.finetuning.clip_export import export_clip
from lyra_core.procedural.atlas import build_atlas
from lyra_core.values import CameraPath, VideoClip

REPOSITORY_GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MakeClip = Callable[..., VideoClip]
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


# A room with exact depth, drawn in milliseconds: smooth walls, a pillar, and a window to the sky.
def _texture(points: torch.Tensor) -> torch.Tensor:
    x, y, z = (points * 0.9).unbind(-1)
    waves = [torch.sin(x + 2 * y) * torch.cos(z), torch.sin(2 * z - y + 1), torch.cos(1.5 * x + z + 2)]
    return 0.5 + 0.25 * torch.stack(waves, -1)


def _room(origin: torch.Tensor, rays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distance in units of the ray, colour and sky, from inside a box of 6 x 3 x 10 m with a window and a pillar."""
    low, high = torch.tensor([-3.0, -1.5, -2.0]).double(), torch.tensor([3.0, 1.5, 8.0]).double()
    safe = torch.where(rays.abs() < 1e-9, torch.full_like(rays, 1e-9), rays)
    t = torch.where(safe > 0, (high - origin) / safe, (low - origin) / safe).amin(-1)
    point = origin + t[..., None] * rays
    sky = (point[..., 2] > 7.99) & (point[..., 0].abs() < 1.2) & (point[..., 1] < 0.2)
    # A round pillar of 0.4 m radius at x = 0.6, z = 3.5.
    ox, oz = origin[0] - 0.6, origin[2] - 3.5
    a = rays[..., 0] ** 2 + rays[..., 2] ** 2
    b = ox * rays[..., 0] + oz * rays[..., 2]
    disc = b * b - a * (ox * ox + oz * oz - 0.16)
    near = (-b - disc.clamp_min(0).sqrt()) / a
    hit = (disc > 0) & (near > 0) & (near < t)
    t = torch.where(hit, near, t)
    color = _texture(origin + t[..., None] * rays)
    color[hit] = color[hit] * torch.tensor([0.9, 0.75, 0.65]).double()
    sky = sky & ~hit
    color[sky] = torch.tensor([0.55, 0.7, 0.95]).double()
    return t, color, sky


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """make_clip(num_frames, height, width, motion="truck"|"static"|"turn") -> VideoClip with depth and sky."""

    def make(num_frames: int = 17, height: int = 48, width: int = 64, motion: str = "truck") -> VideoClip:
        focal = 0.8 * width
        K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
        steps = [(torch.arange(3 * n) + 0.5) / 3 for n in (height, width)]
        v, u = torch.meshgrid(*steps, indexing="ij")
        local = torch.stack([(u - width / 2) / focal, (v - height / 2) / focal, torch.ones_like(u)], -1).double()
        frames, depths, skies, poses = [], [], [], []
        for i in range(num_frames):
            s = i / max(1, num_frames - 1)
            yaw = {"truck": 0.15 * math.sin(2 * s), "static": 0.0, "turn": 0.9 * s}[motion]
            center = {
                "truck": [1.2 * s - 0.6, 0.1 * s, 1.2 * s],
                "static": [0.0, 0.0, 0.0],
                "turn": [0.3 * s, 0.0, 0.0],
            }
            R = torch.tensor(
                [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]],
                dtype=torch.float64,
            )
            c = torch.tensor(center[motion], dtype=torch.float64)
            t, color, sky = _room(c, local @ R.T)
            # Colours are means of 3 x 3 rays, depth is that of the pixel's centre.
            color = color.unflatten(0, (height, 3)).unflatten(2, (width, 3)).mean((1, 3))
            t, sky = t[1::3, 1::3], sky[1::3, 1::3]
            frames.append((color * 255).round().clamp(0, 255).to(torch.uint8))
            depths.append(torch.where(sky, 0.0, t).float())
            skies.append(sky)
            w2c = torch.eye(4, dtype=torch.float64)
            w2c[:3, :3], w2c[:3, 3] = R.T, -R.T @ c
            poses.append(w2c)
        cameras = CameraPath(
            world_to_cam=torch.stack(poses),
            intrinsics=K.repeat(num_frames, 1, 1),
            image_height=height,
            image_width=width,
        )
        return VideoClip(
            frames=torch.stack(frames), cameras=cameras, depth_m=torch.stack(depths), sky=torch.stack(skies)
        )

    return make
