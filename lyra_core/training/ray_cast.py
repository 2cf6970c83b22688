"""Picks how rays meet shapes: compiled loops on the CPU, fused tensor kernels on a GPU, plain tensors as reference.

Fused kernels are made of a few regions, each compiled alone: one graph of everything takes minutes to compile, and
scenes with flat and wavy ground share all but two regions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.training import intersect
from lyra_core.training.intersect import Hits
from lyra_core.training.scene_batch import SceneBatch

Casting = Literal["auto", "plain", "fused"]
"""auto: loops on the CPU, plain elsewhere. plain: the reference. fused: compiled for fixed shapes (a GPU's way)."""

P = ParamSpec("P")
Out = TypeVar("Out")


@functools.cache
def _fuse(function: Callable[P, Out]) -> Callable[P, Out]:
    return torch.compile(function, dynamic=False, fullgraph=True)


def region(function: Callable[P, Out], casting: Casting) -> Callable[P, Out]:
    """The function, compiled where the casting is "fused"."""
    return _fuse(function) if casting == "fused" else function


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
        from lyra_core.training.intersect_cpu import nearest_hits_cpu

        return nearest_hits_cpu(origin, direction, *shapes, scenes.ground, is_flat=scenes.is_flat)
    hits = region(intersect.nearest_shapes, casting)(origin, direction, *shapes)
    if scenes.is_flat:
        ground_t = intersect.hit_plane(origin, direction)
    else:
        ground_t = region(intersect.hit_ground, casting)(origin, direction, scenes.ground)
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
        from lyra_core.training.intersect_cpu import blocked_cpu

        return blocked_cpu(origin, direction, reach, *shapes)
    return region(intersect.blocked, casting)(origin, direction, reach, *shapes)
