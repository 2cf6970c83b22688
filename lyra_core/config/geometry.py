"""What a user chooses about the geometry of a world: the group `geometry` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lyra_core.config.bounds import Bounded, Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryOptions(Bounded):
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

    views: Annotated[int, Bounds(ge=1, le=200)] = 11
    radius: Annotated[float, Bounds(ge=1, le=50)] = 6.0
    cells: Annotated[int, Bounds(ge=2, le=50)] = 10
    mesh_voxels: Annotated[int, Bounds(ge=1_000, le=100_000_000)] = 2_000_000
    collision_faces: Annotated[int, Bounds(ge=10, le=10_000_000)] = 5_000
    needs_floor: bool = False
    max_floor_rmse_m: Annotated[float, Bounds(gt=0)] | None = None
