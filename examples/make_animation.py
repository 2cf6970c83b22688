"""Makes the README's moving picture: photographs, their videos, and their Gaussians from cameras off the path.

python examples/make_animation.py        # a minute or two on two cores
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import lyra_core
from lyra_core.geometry.sway import swayed_path
from lyra_core.world_models.protocol import WorldModel

SEEDS = Path(__file__).parent / "seeds"
NAMES = ("coffee_table", "mountain_meadow")  # only the second is among the training photographs of `mini`
MODEL = "mini"
CAMERA_PATH = "dolly-in"
SWAY_DEG = 5.0  # how far the last column swings beside the path
WIDTH, HEIGHT, GAP = 320, 184, 4  # of a panel, pixels
EVERY, MILLISECONDS, QUALITY = 3, 90, 60
OUT = Path(__file__).parents[1] / "docs" / "pictures" / "world.webp"


def row(model: WorldModel, photograph: Path) -> list[np.ndarray]:
    """Photograph, video and Gaussians beside each other, for some frames of the path."""
    clip = model.generate(photograph, CAMERA_PATH)
    gaussians = model.reconstruct(clip)
    pivot_m = 2.0 if clip.depth_m is None else float(clip.depth_m[0][clip.depth_m[0] > 0].median())
    cameras = clip.cameras.resized(HEIGHT, WIDTH)
    beside = swayed_path(cameras, sway_deg=SWAY_DEG, num_frames=len(clip), pivot_m=pivot_m)[::EVERY]
    drawn = (lyra_core.render(gaussians, beside).color * 255).round().to(torch.uint8)
    triples = ((clip.frames[0], frame, view) for frame, view in zip(clip.frames[::EVERY], drawn, strict=True))
    return [np.concatenate([panel(picture) for picture in triple], axis=1) for triple in triples]


def panel(pixels: Tensor) -> np.ndarray:
    """A picture at the panel's size, with a white edge."""
    resized = Image.fromarray(pixels.numpy()).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return np.pad(np.asarray(resized), ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def main(model: str = MODEL, out: Path = OUT, names: tuple[str, ...] = NAMES) -> None:
    """Write the animation, which plays forth and back."""
    world_model = lyra_core.load_model(model)
    rows = [row(world_model, SEEDS / f"{name}.jpg") for name in names]
    frames = [Image.fromarray(np.concatenate(picture)[:-GAP, :-GAP]) for picture in zip(*rows, strict=True)]
    frames += frames[-2:0:-1]
    out.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, quality=QUALITY)
    print(f"wrote {out}: {len(frames)} frames, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
