"""The mini model's presets: the widths of its video network and the choices of its rollout."""

from __future__ import annotations

from dataclasses import replace

from lyra_core.video.correspondence import CorrespondenceConfig
from lyra_core.video.dit_config import DiTConfig
from lyra_core.video.rollout_config import MENDED, RolloutConfig

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

MINI_CONDITIONING = replace(
    MENDED.conditioning,
    ray_downsample=MAP_DOWNSAMPLE,
    correspondence=CorrespondenceConfig(
        downsample=MAP_DOWNSAMPLE, depth_range="used", warp=MENDED.conditioning.correspondence.warp
    ),
)

MINI = RolloutConfig(
    conditioning=MINI_CONDITIONING,
    memory=MENDED.memory,
    # without depth the sky would be drawn anew in every chunk; far away, only rotation moves it
    depth=replace(MENDED.depth, sky="far"),
    # a student by distribution matching (lyra_core.training.distill)
    sampler="distilled",
    num_steps=4,
    shift=3.0,
    guidance_scale=1.0,
    exact_timesteps=True,
    noise="generator",
    encoded_prefix=4,
    clamp_frames=True,
    photographs_replace_seed=False,
    latents_per_window=20,
)
