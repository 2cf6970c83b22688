"""Render a stored world from a camera that is not on its path: colour and depth.

python examples/render_new_view.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import lyra_core
from catalogs.query import query
from lyra_core.formats.cameras import read_cameras_parquet
from lyra_core.formats.image import write_jpeg
from lyra_core.formats.store import open_store

WORLDS = "./worlds"  # or s3://bucket/worlds
OUT = Path("new-view.jpg")
RIGHT_M = 0.15
SCALE = 2  # of the video's size


def main(worlds: str = WORLDS, out: Path = OUT) -> None:
    """Write one image of the best accepted world, seen from the right of its first camera."""
    store = open_store(worlds)
    best = query(store, "SELECT * FROM worlds ORDER BY psnr_db DESC NULLS LAST, world_id LIMIT 1").to_pylist()[0]
    with tempfile.TemporaryDirectory() as folder:
        ply, parquet = Path(folder, "world.ply"), Path(folder, "cameras.parquet")
        store.get_file(best["ply_uri"], ply)  # keys in the catalog are relative to the store
        store.get_file(best["cameras_uri"], parquet)
        gaussians = lyra_core.Gaussians.load_ply(ply)
        path = read_cameras_parquet(parquet)

    first = path[:1].resized(SCALE * path.image_height, SCALE * path.image_width)
    moved = first.world_to_cam.clone()
    moved[:, 0, 3] -= RIGHT_M  # the world moves left in the camera's frame
    rendering = lyra_core.render(gaussians, replace(first, world_to_cam=moved))
    write_jpeg((rendering.color[0] * 255).round().to(torch.uint8), out)
    seen = rendering.depth_m[0][rendering.alpha[0] > 0.5]
    print(f"{out}: {best['name']}, median depth {seen.median():.2f} m, {len(gaussians):,} Gaussians")


if __name__ == "__main__":
    main()
