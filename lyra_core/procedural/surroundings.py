"""Ground, light and weather of procedural scenes."""

from __future__ import annotations

import math

import numpy as np
import torch

from lyra_core.procedural.primitives import Ground, Light
from lyra_core.procedural.textures import KIND_INDEX

WAVES = 6
"""Waves of every ground, so that scenes batch."""


def flat_ground() -> Ground:
    """The plane y = 0."""
    zero = torch.zeros(WAVES)
    return Ground(
        amplitude=zero,
        wave=torch.zeros(WAVES, 2),
        phase=zero,
        rise=torch.tensor(0.0),
        slope_kind=torch.tensor(KIND_INDEX["rock"]),
        slope_variant=torch.tensor(0.0),
    )


def daylight(rng: np.random.Generator, *, haze_per_m: float, indoors: float = 0.0) -> Light:
    """A sun somewhere above the horizon, from noon to dusk or under an overcast sky.

    Args:
        rng: source.
        haze_per_m: extinction of the haze.
        indoors: extra ambient light for places the sky hardly reaches.
    """
    elevation = math.radians(rng.uniform(8, 70))
    azimuth = rng.uniform(0, 2 * math.pi)
    sun = [math.cos(elevation) * math.cos(azimuth), -math.sin(elevation), math.cos(elevation) * math.sin(azimuth)]
    low = 1 - math.sin(elevation)
    overcast = rng.random() < 0.25
    warm = np.array([1.0, 0.93 - 0.35 * low**2, 0.82 - 0.55 * low**2])
    color = warm * (rng.uniform(0.1, 0.4) if overcast else rng.uniform(1.4, 2.6))
    zenith = np.array([0.10, 0.24, 0.62]) * rng.uniform(0.5, 1.3)
    haze = np.array([0.62, 0.72, 0.85]) * rng.uniform(0.7, 1.1)
    dusk = low**3
    haze = haze * (1 - dusk) + np.array([0.95, 0.5, 0.25]) * rng.uniform(0.5, 0.9) * dusk
    if overcast:
        grey = rng.uniform(0.5, 1.0)
        zenith, haze = np.full(3, grey), np.full(3, grey * 1.15)
    above = (0.35 * zenith + 0.35 * haze + 0.12) * rng.uniform(0.8, 1.2) + indoors
    below = above * rng.uniform(0.35, 0.6)
    return _light(
        position=[*sun, 0.0],
        color=color,
        reach_m=1.0,
        above=above,
        below=below,
        haze=haze,
        haze_per_m=haze_per_m,
        zenith=zenith,
        cloud=float(rng.uniform(0.0, 0.9)) if rng.random() < 0.8 else 0.0,
        cloud_variant=float(rng.random()),
        exposure=float(rng.uniform(0.9, 1.7)),
    )


def lamplight(rng: np.random.Generator, where: tuple[float, float, float], reach_m: float) -> Light:
    """A lamp at a world position in a place without sun."""
    warmth = rng.uniform(0.0, 0.45)
    color = np.array([1.0, 1 - 0.35 * warmth, 1 - 0.75 * warmth]) * rng.uniform(1.5, 3.2)
    above = np.array([0.3, 0.3, 0.32]) * rng.uniform(0.6, 1.4)
    night = rng.random() < 0.3
    sky = np.array([0.02, 0.03, 0.06]) if night else np.array([0.6, 0.7, 0.85]) * rng.uniform(0.7, 1.2)
    return _light(
        position=[*where, 1.0],
        color=color,
        reach_m=reach_m,
        above=above,
        below=above * rng.uniform(0.6, 0.95),
        haze=sky,
        haze_per_m=0.001,
        zenith=sky * 0.5,
        cloud=0.0,
        cloud_variant=0.0,
        exposure=float(rng.uniform(0.9, 1.6)),
    )


def _light(**values: object) -> Light:
    return Light(**{name: torch.tensor(np.asarray(value, dtype=np.float32)) for name, value in values.items()})


def rolling_ground(rng: np.random.Generator) -> Ground:
    """Waves from 130 m down to 6 m, gentle at the origin and higher far away."""
    lengths = np.geomspace(130, 6, WAVES) * rng.uniform(0.8, 1.25, WAVES)
    steepness = rng.uniform(0.006, 0.02) * rng.uniform(0.5, 1.2, WAVES)
    heading = rng.uniform(0, 2 * math.pi, WAVES)
    wave = 2 * math.pi / lengths[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    slope = str(rng.choice(["rock", "rock", "soil", "snow", "foliage"]))
    return Ground(
        amplitude=torch.tensor(lengths * steepness, dtype=torch.float32),
        wave=torch.tensor(wave, dtype=torch.float32),
        phase=torch.tensor(rng.uniform(0, 2 * math.pi, WAVES), dtype=torch.float32),
        rise=torch.tensor(float(rng.uniform(0.3, 2.2))),
        slope_kind=torch.tensor(KIND_INDEX[slope]),
        slope_variant=torch.tensor(float(rng.random()), dtype=torch.float32),
    )
