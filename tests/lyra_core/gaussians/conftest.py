"""A room with exact depth, drawn in milliseconds: smooth walls, a pillar, and a window to the sky."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from lyra_core.values import CameraPath, VideoClip

MakeClip = Callable[..., VideoClip]


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
