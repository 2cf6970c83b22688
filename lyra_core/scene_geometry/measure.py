"""The geometry of a finished world, from its Gaussians and cameras alone: a stage that any world can be given later.

draw depth of some frames -> points -> floor, gate -> scale -> ground frame -> terrain -> free space, spawn
                                                                     \\-> meshes, only where somebody wants them
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lyra_core.config.geometry import GeometryOptions
from lyra_core.formats.mesh import Mesh
from lyra_core.formats.mjcf import MujocoWorld
from lyra_core.identity import rng_seed
from lyra_core.scene_geometry.floor import CAMERA_UP, Floor, find_floor
from lyra_core.scene_geometry.free_space import FreeSpace, find_free_space
from lyra_core.scene_geometry.fusion import color_mesh, extract_mesh, fuse_views, simplify
from lyra_core.scene_geometry.ground_frame import GroundFrame
from lyra_core.scene_geometry.scale import GivenScale, Scale, find_scale
from lyra_core.scene_geometry.terrain import Terrain, build_terrain
from lyra_core.scene_geometry.views import DepthViews, SurfacePoints, draw_views, surface_points
from lyra_core.values import CameraPath, Gaussians

SEARCHES = 5  # independent searches for a floor, whose agreement is part of the gate
# Without a floor a mesh holds what lies within this many median distances.
MESH_RADIUS_MEDIANS = 3.0
MESH_RADIUS_HEIGHTS = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneGeometry:
    """What is known of a world's geometry; None where the evidence does not suffice.

    Attributes:
        floor: trusted, or None.
        doubtful_floor: the best plane, trusted or not; None where none was found.
        scale: how long a world unit is.
        frame: the ground frame; its unit is the metre where `scale.best` is known, else the world's.
        terrain: of a trusted floor of known or likely scale.
        free_space: of the terrain.
        reasons: why there is no place to stand; empty where there is one.
        views: what all of it was made from.
        points: the same, as points in the world frame.
        options: how it was measured.
    """

    floor: Floor | None
    doubtful_floor: Floor | None
    scale: Scale
    frame: GroundFrame
    terrain: Terrain | None
    free_space: FreeSpace | None
    reasons: tuple[str, ...]
    views: DepthViews
    points: SurfacePoints
    options: GeometryOptions

    @property
    def up(self) -> tuple[float, float, float]:
        """Up in the world frame: of a trusted floor, else the first camera's."""
        return CAMERA_UP if self.floor is None else self.floor.up

    @property
    def up_source(self) -> str:
        """floor or camera."""
        return "camera" if self.floor is None else "floor"

    def visual_mesh(self) -> Mesh | None:
        """The fused surface with colours, in the ground frame; None where nothing was seen.

        Raises:
            MissingExtraError: a package of the extra `geometry` is not installed.
        """
        if len(self.points) == 0:
            return None
        medians = MESH_RADIUS_MEDIANS * float(np.median(self.points.ranges))
        radius = medians if self.floor is None else min(MESH_RADIUS_HEIGHTS * self.floor.camera_height, 2 * medians)
        near = self.points.ranges <= radius
        held = self.frame.to_ground(self.points.xyz[near])
        if len(held) == 0:
            return None
        mesh = extract_mesh(fuse_views(self.views, self.frame, held, self.options.mesh_voxels))
        return None if mesh is None else color_mesh(mesh, self.views, self.frame)

    def collision_mesh(self, visual: Mesh) -> Mesh:
        """A visual mesh in at most `options.collision_faces` triangles, without colours.

        Raises:
            MissingExtraError: a package of the extra `geometry` is not installed.
        """
        return simplify(visual, self.options.collision_faces)

    def mujoco_world(self) -> MujocoWorld | None:
        """Terrain, obstacles and a place to stand for MuJoCo; None where there is no such place."""
        if self.terrain is None or self.free_space is None or self.free_space.spawn is None:
            return None
        spawn, cameras = self.free_space.spawn, self.views.cameras
        return MujocoWorld(
            heights=self.terrain.heights,
            spacing=self.terrain.cell,
            x0=self.terrain.x0,
            y0=self.terrain.y0,
            boxes=self.terrain.boxes,
            spawn=(spawn.x, spawn.y, spawn.z, spawn.yaw_rad),
            camera=self.frame.camera(cameras.world_to_cam[0].numpy()),
            fovy_deg=math.degrees(2 * math.atan(cameras.image_height / (2 * float(cameras.intrinsics[0, 1, 1])))),
        )


def measure_geometry(
    gaussians: Gaussians,
    cameras: CameraPath,
    world_id: str,
    *,
    options: GeometryOptions | None = None,
    is_metric_model: bool = False,
    given: GivenScale | None = None,
) -> SceneGeometry:
    """Find floor, up, scale, terrain and free space; equal arguments give equal numbers.

    Args:
        gaussians: of the world, world frame.
        cameras: of its video, the first at the origin.
        world_id: all random draws derive from it.
        options: how; the defaults if None.
        is_metric_model: the world's depth comes from a network that measures metres.
        given: what a person knows of the photograph.
    """
    options = options or GeometryOptions()
    views = draw_views(gaussians, cameras, options.views)
    points = surface_points(views)
    seeds = [rng_seed(world_id, "geometry", search) for search in range(SEARCHES)]
    found = find_floor(points, seeds, options.radius)
    floor = found if found is not None and not found.doubts else None
    scale = find_scale(floor, views, is_metric_model=is_metric_model, given=given)
    frame = GroundFrame.on(floor, scale.best or 1.0)
    terrain = free_space = None
    reasons = list(("no plane under the camera was found",) if found is None else found.doubts)
    if floor is not None and scale.best is None:
        reasons.append(
            f"the camera stands {floor.camera_height:.2f} units above the floor, which no person does, and nothing "
            "else tells metres"
        )
    elif floor is not None:
        height = frame.scale * floor.camera_height
        terrain = build_terrain(frame.to_ground(points.xyz), height, options.radius, options.cells)
        free_space = find_free_space(terrain) if terrain is not None else None
        if free_space is None or free_space.spawn is None:
            reasons.append("no free place for a robot of 0.4 x 0.6 m was seen on the floor")
    return SceneGeometry(
        floor=floor,
        doubtful_floor=found,
        scale=scale,
        frame=frame,
        terrain=terrain,
        free_space=free_space,
        reasons=tuple(reasons),
        views=views,
        points=points,
        options=options,
    )
