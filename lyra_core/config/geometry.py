"""What a user chooses about the geometry of a world: the group `geometry` of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lyra_core.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryOptions:
    """How the geometry of a world is measured, and what a world must have to be accepted.

    Attributes:
        views: frames of the video whose depth is looked at, spread evenly.
        radius: how far from the first camera the ground is mapped, in heights of that camera above the floor.
        cells: cells of the map in one camera height.
        mesh_voxels: most voxels of the volume that depth is fused in; a mesh is made only where an artifact wants it.
        collision_faces: most triangles of the collision mesh.
        needs_floor: a world without a trusted floor is not accepted.
        max_floor_rmse_m: a world whose floor is rougher, or not trusted, is not accepted; None is no limit.
    """

    views: int = 11
    radius: float = 6.0
    cells: int = 10
    mesh_voxels: int = 2_000_000
    collision_faces: int = 5_000
    needs_floor: bool = False
    max_floor_rmse_m: float | None = None

    def __post_init__(self) -> None:
        limits = {"views": (1, 200), "cells": (2, 50), "mesh_voxels": (1_000, 10**8), "collision_faces": (10, 10**7)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise RecipeError(f"geometry.{name} must be {least} to {most}, found {getattr(self, name)}")
        if not 1.0 <= self.radius <= 50.0:
            raise RecipeError(f"geometry.radius must be 1 to 50 camera heights, found {self.radius}")
        rmse = self.max_floor_rmse_m
        if rmse is not None and not (math.isfinite(rmse) and rmse > 0):
            raise RecipeError(f"geometry.max_floor_rmse_m must be a positive number of metres or none, found {rmse}")
