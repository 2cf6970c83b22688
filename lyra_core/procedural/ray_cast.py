"""Picks how rays meet shapes: compiled loops on the CPU, plain tensors as reference; a GPU draws with render_kernel."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.procedural import intersect
from lyra_core.procedural.intersect import Hits
from lyra_core.procedural.scene_batch import SceneBatch

Casting = Literal["auto", "plain", "fused"]
"""auto: loops on the CPU, fused on a GPU. plain: the reference. fused: one kernel from ray to colour (a GPU's way)."""


def is_fused(casting: Casting, device: torch.device) -> bool:
    """Whether frames are drawn by the one kernel of render_kernel."""
    return casting == "fused" or (casting == "auto" and device.type == "cuda")


def nearest_hits(
    scenes: SceneBatch,
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    casting: Casting = "auto",
) -> Hits:
    """The first shape, or the ground, each ray meets.

    Args:
        scenes: of b scenes.
        origin: world frame, metres, above the ground and outside shapes.
        direction: world frame, any length.
        casting: how.
    """
    shapes = (scenes.boxes, scenes.ellipsoids, scenes.frusta)
    if casting == "auto" and origin.device.type == "cpu":
        from lyra_core.procedural.intersect_cpu import nearest_hits_cpu

        return nearest_hits_cpu(origin, direction, *shapes, scenes.ground, is_flat=scenes.is_flat)
    hits = intersect.nearest_shapes(origin, direction, *shapes)
    if scenes.is_flat:
        ground_t = intersect.hit_plane(origin, direction)
    else:
        ground_t = intersect.hit_ground(origin, direction, scenes.ground)
    return intersect.with_ground(hits, ground_t, direction, scenes.texture.shape[1] - 1)


def blocked(
    scenes: SceneBatch,
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    reach: Float[Tensor, "b r"],
    casting: Casting = "auto",
) -> Float[Tensor, "b r"]:
    """1 where a shape lies on the way to the light within `reach`, else 0; see intersect.blocked."""
    shapes = (scenes.boxes, scenes.ellipsoids, scenes.frusta)
    if casting == "auto" and origin.device.type == "cpu":
        from lyra_core.procedural.intersect_cpu import blocked_cpu

        return blocked_cpu(origin, direction, reach, *shapes)
    return intersect.blocked(origin, direction, reach, *shapes)
