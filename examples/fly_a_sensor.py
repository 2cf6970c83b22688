"""Fly sensors through a stored world: pinhole and fisheye cameras with depth and normals, and a laser scanner.

python examples/fly_a_sensor.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lyra_core import Gaussians
from lyra_core.dataset import FileCache, open_dataset
from lyra_core.formats.cameras import read_cameras_parquet
from lyra_core.formats.image import write_depth_png, write_jpeg
from lyra_core.sensors import Caster, LidarModel, fisheye_rays, lidar_rays, pinhole_rays, write_lidar_ply

WORLDS = "./worlds"
OUT = Path("sensors")
EVERY = 20  # frames of the world's own path between two captures
FISHEYE_PX = 256  # height and width of the fisheye's picture
FISHEYE_DEG = 190.0
LIDAR = LidarModel(elevations_deg=tuple(10.0 - 2 * i for i in range(16)), columns=512, max_range=50.0)


def picture(values: Tensor) -> Tensor:
    """Colours, or normals as colours, as bytes."""
    return (values.clamp(0, 1) * 255).round().byte()


def main(worlds: str = WORLDS, out: Path = OUT) -> int:
    """Write pictures and one cloud of laser points, in the world's frame; returns the number of points."""
    chosen, cache = open_dataset(worlds), FileCache()
    row = chosen.table.sort_by([("psnr_db", "descending")]).slice(0, 1).to_pylist()[0]
    caster = Caster(Gaussians.load_ply(cache.fetch(chosen.store, row["ply_uri"])))
    path = read_cameras_parquet(cache.fetch(chosen.store, row["cameras_uri"]))[::EVERY]
    focal = FISHEYE_PX / torch.deg2rad(torch.tensor(FISHEYE_DEG))  # the image circle touches the picture's edges
    lens = torch.tensor([[focal, 0, FISHEYE_PX / 2], [0, focal, FISHEYE_PX / 2], [0, 0, 1]])
    sensors = {
        "pinhole": pinhole_rays(path.intrinsics[0], path.image_height, path.image_width),
        "fisheye": fisheye_rays(lens, FISHEYE_PX, FISHEYE_PX, max_angle_deg=FISHEYE_DEG / 2),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, rays in sensors.items():
        for number, cast in enumerate(caster.sweep(rays, path)):
            write_jpeg(picture(cast.color), out / f"{name}_{number:02d}_color.jpg")
            write_jpeg(picture(cast.normals() * 0.5 + 0.5), out / f"{name}_{number:02d}_normals.jpg")
            write_depth_png(cast.range, out / f"{name}_{number:02d}_range.png")  # thousandths of a unit
    points = write_lidar_ply(list(caster.sweep(lidar_rays(LIDAR), path)), out / "lidar.ply", LIDAR.max_range)
    print(f"{out}: {row['name']}, {len(path)} places, {points:,} laser points")
    return points


if __name__ == "__main__":
    main()
