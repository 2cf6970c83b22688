"""From what a user asks for (a preset, a file, cameras) to the cameras of one seed: scaled, and kept out of walls."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.errors import CameraPathError
from lyra_core.geometry.camera_files import is_camera_file
from lyra_core.geometry.camera_paths import build_camera_path, measure_scene_depth_m
from lyra_core.geometry.collision import fit_before_geometry, stop_before_geometry
from lyra_core.geometry.requests import PRESETS
from lyra_core.geometry.trajectory_files import load_trajectory
from lyra_core.values import CameraPath

# A camera stays this share of the scene's depth away from what it flies towards: nearer, single pixels fill the view.
MARGIN_SHARE = 0.15


def cameras_for_seed(
    camera_path: CameraPath | str | Path,
    *,
    num_frames: int,
    intrinsics: Float[Tensor, "3 3"],
    depth_m: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
) -> CameraPath:
    """The cameras of a seed's video, the first one being the seed's.

    Args:
        camera_path: a preset's name, a camera file (.npz, .json or .parquet, see camera_files), or cameras.
        num_frames: as many as the model makes; a longer file or path is cut.
        intrinsics: of the seed image, pixels. [3 3]
        depth_m: z-depth of the seed, metres; presets are scaled by it. Closed presets become smaller where it is in
            their way, every other path stops before it. [h w]
        sky: where depth means nothing. [h w]

    Raises:
        CameraPathError: unknown preset, malformed file, or fewer cameras than frames.
    """
    image_height, image_width = depth_m.shape
    solid = ~sky if bool((~sky).any()) else torch.ones_like(sky)
    scene_depth_m = measure_scene_depth_m(depth_m, solid)
    known, margin_m = torch.where(sky, torch.zeros_like(depth_m), depth_m), MARGIN_SHARE * scene_depth_m
    if isinstance(camera_path, CameraPath):
        if len(camera_path) < num_frames:
            raise CameraPathError(
                f"{num_frames} frames need as many cameras, found a path of {len(camera_path)}; "
                f"pass num_frames={len(camera_path)} or a longer path"
            )
        path = camera_path[:num_frames].resized(image_height, image_width)
    elif str(camera_path) not in PRESETS and is_camera_file(camera_path):
        path = load_trajectory(
            camera_path,
            num_frames=num_frames,
            intrinsics=intrinsics,
            image_height=image_height,
            image_width=image_width,
            any_count=True,
        )
    else:

        def gesture(strength: float) -> CameraPath:
            return build_camera_path(
                str(camera_path),
                num_frames=num_frames,
                intrinsics=intrinsics,
                image_height=image_height,
                image_width=image_width,
                scene_depth_m=scene_depth_m,
                strength=strength,
                any_count=True,
            )

        is_closed = str(camera_path) in PRESETS and not PRESETS[str(camera_path)].is_steady
        path = fit_before_geometry(gesture, known, intrinsics, margin_m) if is_closed else gesture(1.0)
    return stop_before_geometry(path, known, intrinsics, margin_m)
