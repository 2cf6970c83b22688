"""Scenes with known answers: planes and boxes seen by pinhole cameras, as depth and as points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lyra_core.scene_geometry.views import DepthViews
from lyra_core.values import CameraPath

H, W, FOCAL = 48, 64, 50.0
Hit = Callable[[np.ndarray, np.ndarray], np.ndarray]


def camera_path(centers: list[list[float]]) -> CameraPath:
    """Cameras that look along z, the first at the origin."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    poses[:, :3, 3] = -torch.tensor(centers, dtype=torch.float64)
    K = torch.tensor([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraPath(world_to_cam=poses, intrinsics=K.repeat(len(centers), 1, 1), image_height=H, image_width=W)


def plane_hit(up: np.ndarray, height: float) -> Hit:
    """Distance along rays, in units of the ray, to the plane `height` below the origin; infinite where it is missed."""

    def hit(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        along = rays @ up
        with np.errstate(divide="ignore"):
            t = -(height + origin @ up) / along
        return np.where((along < 0) & (t > 0), t, np.inf)

    return hit


def box_hit(low: np.ndarray, high: np.ndarray) -> Hit:
    """The same for a box, by slabs."""

    def hit(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        safe = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
        a, b = (low - origin) / safe, (high - origin) / safe
        near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        return np.where((near < far) & (near > 0), near, np.inf)

    return hit


def depth_views(hits: list[Hit], centers: list[list[float]], most: float = 30.0) -> DepthViews:
    """Exact depth of a scene; 0 beyond `most`."""
    cameras = camera_path(centers)
    v, u = np.meshgrid(np.arange(H) + 0.5, np.arange(W) + 0.5, indexing="ij")
    rays = np.stack([(u - W / 2) / FOCAL, (v - H / 2) / FOCAL, np.ones_like(u)], -1)
    depth = np.stack([np.min([hit(np.array(c), rays) for hit in hits], 0) for c in centers])
    depth = torch.from_numpy(np.where(depth < most, depth, 0.0)).float()
    return DepthViews(depth=depth, color=torch.full((*depth.shape, 3), 0.5), cameras=cameras)


def tilted_up(tilt_deg: float, azimuth_deg: float) -> np.ndarray:
    """A unit vector tilted against the camera's up, (0, -1, 0)."""
    t, a = math.radians(tilt_deg), math.radians(azimuth_deg)
    return np.array([math.sin(t) * math.cos(a), -math.cos(t), math.sin(t) * math.sin(a)])


PATH = [[0.1 * k, 0.0, 0.15 * k] for k in range(5)]


@pytest.fixture(scope="session")
def scenes():
    """The functions above."""

    class Scenes:
        plane, box, views, up = staticmethod(plane_hit), staticmethod(box_hit), staticmethod(depth_views), tilted_up
        path = PATH

    Scenes.up = staticmethod(tilted_up)
    return Scenes
