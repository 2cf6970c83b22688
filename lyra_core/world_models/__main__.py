"""`python -m lyra_core.world_models`: compile the kernels into numba's cache, as part of an installation."""

from __future__ import annotations

import torch

from lyra_core.quality import measure
from lyra_core.world_models.parallax import ParallaxModel

rows = torch.linspace(0, 255, 96).to(torch.uint8)[:, None, None].expand(96, 160, 3).contiguous()
model = ParallaxModel()
clip = model.generate(rows, "dolly-in", num_frames=2, width=160, height=96)
measure(clip, model.reconstruct(clip), max_views=1)
