"""Makes the README's picture: a seed, three frames of its video, and the Gaussians from a camera off the path."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import lyra_core
from lyra_core.formats.image import write_jpeg
from lyra_core.geometry.sway import swayed_path

SEED = Path(__file__).parent / "seeds" / "alpine_path.jpg"
OUT = Path(__file__).parents[1] / "docs" / "pictures" / "world.jpg"
MODEL = sys.argv[1] if len(sys.argv) > 1 else "parallax"
FRAMES = (0, 40, 80)

model = lyra_core.load_model(MODEL)
clip = model.generate(SEED, "dolly-in", width=320, height=184)
gaussians = model.reconstruct(clip)
beside = swayed_path(clip.cameras, sway_deg=9.0, num_frames=5, pivot_m=4.0)[1:2]
rendered = (lyra_core.render(gaussians, beside).color[0] * 255).round().to(torch.uint8)

gap = torch.full((clip.frames.shape[1], 6, 3), 255, dtype=torch.uint8)
panels = [clip.frames[0], *(clip.frames[t] for t in FRAMES[1:]), rendered]
row = [piece for panel in panels for piece in (panel, gap)][:-1]
OUT.parent.mkdir(parents=True, exist_ok=True)
write_jpeg(torch.cat(row, dim=1), OUT)
print(f"wrote {OUT}: {len(gaussians):,} Gaussians")
