"""The shipped checkpoint makes worlds that are worth something: floors some decibels below what was measured.

Numbers of many scenes are in lyra_core/weights/mini/README.md; here one held-out place and one photograph that no
training saw tell that weights, code and choices still belong together.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lyra_core.gaussians.photometric import psnr_db
from lyra_core.gaussians.render import render
from lyra_core.generative.mini import load_mini_model
from lyra_core.training.chunks import Clips
from lyra_core.training.estimated_depth import with_seed_depth
from lyra_core.training.measures import masked_psnr_db, seen_by_seed
from lyra_core.training.worlds import scene_clip
from lyra_core.values import CameraPath, Seed, VideoClip
from lyra_core.video.depth_cache import SKY_DEPTH_M
from lyra_core.video.world_state import to_bytes, to_unit_range

PHOTOGRAPH = Path(__file__).resolve().parents[3] / "examples" / "seeds" / "coffee_table.jpg"
FRAMES, HEIGHT, WIDTH = 161, 128, 224
SCENE = 5

SEEN_F80_DB = 20.0
REVISIT_DB = 20.0
OWN_FRAMES_DB = 22.0


@pytest.fixture(scope="module")
def model():
    return load_mini_model(reconstruction={"tier": "100k"})


def own_frames_db(gaussians, clip: VideoClip, frames: list[int]) -> float:
    """PSNR of Gaussians at frames of the video they were made of."""
    return psnr_db(render(gaussians, clip.cameras[frames]).color, clip.frames[frames].float() / 255)


def is_finite(gaussians) -> bool:
    """Whether every number of a set can be used."""
    parts = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.opacities)
    return all(bool(torch.isfinite(part).all()) for part in parts)


@pytest.fixture(scope="module")
def place() -> tuple[Clips, CameraPath]:
    """A held-out place: the frames that are looked at, and all cameras, out and back."""
    path = sample_path(sample_scene(SCENE, "heldout"), "out-and-back", FRAMES, HEIGHT, WIDTH)
    return path
