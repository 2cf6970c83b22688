"""The mini model's presets: the widths of its video network and the choices of its rollout."""

from __future__ import annotations

from dataclasses import replace

from lyra_core.config.rollout import REFERENCE, ConditioningConfig, CorrespondenceConfig, with_options
from lyra_core.config.video import MINI_VIDEO
from lyra_core.video.dit.config import DiTConfig

MAP_DOWNSAMPLE = 4
"""Pixels along each axis a ray or a coordinate stands for: maps of 32x56 for frames of 128x224."""
CELL = 8 // MAP_DOWNSAMPLE

MINI_DIT = DiTConfig(
    # without the released layout's 16 latents at a quarter of the scale: their embedding alone is 2.4 M parameters
    layout="f1k1f4s2f1s1f8k2f1k1_g20",
    latent_channels=16,
    condition_channels=20,
    ray_channels=6 * CELL**2,
    correspondence_channels=5 * 4 * CELL**2,
    correspondence_frequencies=2,
    squeeze_dim=48,
    patch=2,
    dim=256,
    ffn_dim=768,
    num_heads=4,
    num_layers=8,
    time_dim=256,
    text_dim=64,
    image_dim=64,
    eps=1e-6,
)

MINI = with_options(
    replace(
        REFERENCE,
        conditioning=ConditioningConfig(
            ray_downsample=MAP_DOWNSAMPLE, correspondence=CorrespondenceConfig(downsample=MAP_DOWNSAMPLE)
        ),
    ),
    MINI_VIDEO,
)
