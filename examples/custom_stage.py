"""A stage, a file format and a recipe of your own: keep Gaussians near the path, store them as a point cloud too.

LYRA_MODEL_PATH=examples lyra run photos/ --ray off --recipe custom_stage:recipe
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.recipes import mini
from lyra_core.errors import ReconstructionError
from lyra_core.spherical_harmonics import SH_C0
from lyra_core.values import Gaussians, VideoClip
from tasks.artifacts import Contents, Format
from tasks.recipe import Recipe

RADIUS_M = 100.0
MIN_GAUSSIANS = 100


def keep_near(clip: VideoClip, gaussians: Gaussians) -> Gaussians:
    """A stage runs between Gaussians and quality; the catalog times it, and a LyraError it raises rejects the world."""
    distance_m = (gaussians.means - clip.cameras.centers_m[0].float()).norm(dim=1)
    kept = gaussians[distance_m < RADIUS_M]
    if len(kept) < MIN_GAUSSIANS:
        raise ReconstructionError(f"wanted {MIN_GAUSSIANS} Gaussians within {RADIUS_M:g} m, found {len(kept)}")
    return kept


def _write_points(world: Contents, path: Path) -> None:
    colors = (0.5 + SH_C0 * world.gaussians.sh[:, 0]).clamp(0, 1)
    np.savez_compressed(path, xyz_m=world.gaussians.means.numpy(), rgb=(255 * colors).byte().numpy())


POINTS = Format(role="points", name="points.npz", media_type="application/x-npz", write=_write_points)


def recipe() -> Recipe:
    """The recipe `mini` with both."""
    base = mini()
    changes = {
        "name": "mini-near",
        "stages": ("custom_stage:keep_near",),
        "artifacts": (*base.artifacts, "custom_stage:POINTS"),
    }
    return base.model_copy(update=changes)
