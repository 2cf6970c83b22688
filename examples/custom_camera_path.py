"""A camera path of your own, given to a model in Python and saved for `lyra run --camera-path FILE`.

python examples/custom_camera_path.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

import lyra_core
from lyra_core.geometry.camera import intrinsics_from_hfov
from lyra_core.geometry.trajectory_files import save_trajectory

PHOTOGRAPH = Path(__file__).parent / "seeds" / "launch_pad.jpg"
OUT = Path("custom-path")
MODEL = "mini"
FRAMES = 81
WIDTH, HEIGHT = 224, 128
HFOV_DEG = 55.0  # horizontal field of view
FORWARD_M, RADIUS_M = 0.4, 0.1


def spiral(frames: int, width: int, height: int) -> lyra_core.CameraPath:
    """One turn of a spiral that moves forward. OpenCV axes: x right, y down, z forward; frame 0 is the identity."""
    turn = torch.linspace(0, 2 * math.pi, frames, dtype=torch.float64)
    centers_m = torch.stack(
        [RADIUS_M * turn.sin(), RADIUS_M * (1 - turn.cos()), FORWARD_M * turn / (2 * math.pi)], dim=1
    )
    world_to_cam = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    world_to_cam[:, :3, 3] = -centers_m  # without rotation the translation is minus the centre
    intrinsics = intrinsics_from_hfov(HFOV_DEG, height, width).double().repeat(frames, 1, 1)
    return lyra_core.CameraPath(
        world_to_cam=world_to_cam, intrinsics=intrinsics, image_height=height, image_width=width, name="my-spiral"
    )


def main(model: str = MODEL, out: Path = OUT, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write spiral.npz and world.ply to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = spiral(FRAMES, *size)
    save_trajectory(path, out / "spiral.npz")

    world_model = lyra_core.load_model(model)
    clip = world_model.generate(PHOTOGRAPH, path, num_frames=FRAMES, width=size[0], height=size[1])
    world_model.reconstruct(clip).save_ply(out / "world.ply")
    print(f"for a batch: lyra run photographs/ --camera-path {out / 'spiral.npz'}")


if __name__ == "__main__":
    main()
