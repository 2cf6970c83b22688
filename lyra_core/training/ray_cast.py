"""Picks how rays meet shapes: compiled loops on the CPU, broadcast tensors elsewhere and as the reference."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.training import intersect
from lyra_core.training.intersect import Hits
from lyra_core.training.scene_batch import SceneBatch


def _use_loops(origin: Tensor, is_reference: bool) -> bool:
    return not is_reference and origin.device.type == "cpu" and not torch.compiler.is_compiling()


def nearest_hits(
    scenes: SceneBatch, origin: Float[Tensor, "b r 3"], direction: Float[Tensor, "b r 3"], *, is_reference: bool = False
) -> Hits:
    """The first shape each ray meets; see intersect.nearest_hits.

    Args:
        scenes: of b scenes.
        origin: world frame, metres, above the ground and outside shapes.
        direction: world frame, any length.
        is_reference: take the plain tensor path on every device.
    """
    cast = intersect.nearest_hits
    if _use_loops(origin, is_reference):
        from lyra_core.training.intersect_cpu import nearest_hits_cpu as cast
    return cast(
        origin, direction, scenes.boxes, scenes.ellipsoids, scenes.frusta, scenes.ground, is_flat=scenes.is_flat
    )


def blocked(
    scenes: SceneBatch,
    origin: Float[Tensor, "b r 3"],
    direction: Float[Tensor, "b r 3"],
    reach: Float[Tensor, "b r"],
    *,
    is_reference: bool = False,
) -> Float[Tensor, "b r"]:
    """1 where a shape lies on the way to the light within `reach`, else 0; see intersect.blocked."""
    cast = intersect.blocked
    if _use_loops(origin, is_reference):
        from lyra_core.training.intersect_cpu import blocked_cpu as cast
    return cast(origin, direction, reach, scenes.boxes, scenes.ellipsoids, scenes.frusta)
