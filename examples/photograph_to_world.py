"""From one photograph to a video, 3D Gaussians and a rendered image, in Python: no Prefect, no Ray, no network.

python examples/photograph_to_world.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import lyra_core
from lyra_core.formats.clip import write_mp4
from lyra_core.formats.image import write_jpeg

PHOTOGRAPH = Path(__file__).parent / "seeds" / "coffee_table.jpg"
OUT = Path("one-world")
MODEL = "mini"
CAMERA_PATH = "orbit-left"
FRAMES = 81  # 1 + 80 k
SIZE: dict[str, int] = {}  # width and height; empty: the model's own size


def main(model: str = MODEL, out: Path = OUT, size: dict[str, int] = SIZE) -> None:
    """Write world.ply, video.mp4 and view.jpg to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    world_model = lyra_core.load_model(model)
    clip = world_model.generate(PHOTOGRAPH, CAMERA_PATH, num_frames=FRAMES, **size)
    gaussians = world_model.reconstruct(clip)

    gaussians.save_ply(out / "world.ply")
    write_mp4(clip.frames, out / "video.mp4", fps=clip.fps)
    rendered = lyra_core.render(gaussians, clip.cameras[FRAMES // 2 :][:1]).color[0]  # [h w 3], 0 to 1
    write_jpeg((rendered * 255).round().to(torch.uint8), out / "view.jpg")
    print(f"{out}: {len(clip)} frames of {clip.frames.shape[2]}x{clip.frames.shape[1]}, {len(gaussians):,} Gaussians")


if __name__ == "__main__":
    main()
