"""Stage 4: what a robot needs to know of the world, where the recipe asks for it; it never rejects a photograph."""

from __future__ import annotations

from dataclasses import dataclass

from lyra_core.config.geometry import GeometryOptions
from lyra_core.formats.mesh import Mesh
from lyra_core.provenance import Provenance
from lyra_core.scene_geometry.measure import SceneGeometry, measure_geometry
from lyra_core.scene_geometry.scale import GivenScale
from lyra_core.spec import WorldSpec
from lyra_core.values import Gaussians, VideoClip
from tasks.recipe import COLLIDER_ROLES, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldGeometry:
    """What was measured, and the meshes where an artifact of the recipe wants them; None where nothing was seen."""

    scene: SceneGeometry
    visual: Mesh | None = None
    collision: Mesh | None = None


def measure_world(
    spec: WorldSpec, recipe: Recipe, clip: VideoClip, gaussians: Gaussians, provenance: Provenance
) -> WorldGeometry | None:
    """Measure a world's geometry, or nothing where the recipe leaves it out."""
    if recipe.geometry is None:
        return None
    scene = measure_geometry(
        gaussians,
        clip.cameras,
        spec.world_id,
        options=recipe.geometry,
        is_metric_model=provenance.metric_scale_source == "depth_model",
        given=GivenScale(camera_height_m=spec.camera_height_m, center_distance_m=spec.center_distance_m),
    )
    visual = scene.visual_mesh() if COLLIDER_ROLES & set(recipe.artifacts) else None
    return WorldGeometry(scene=scene, visual=visual, collision=None if visual is None else scene.collision_mesh(visual))


def geometry_reasons(scene: SceneGeometry, options: GeometryOptions) -> list[str]:
    """The gates of a recipe's geometry that a world fails, as sentences."""
    floor, best = scene.floor, scene.scale.best
    wants_floor = options.needs_floor or options.max_floor_rmse_m is not None
    if floor is None:
        return [f"no trusted floor: {'; '.join(scene.reasons)}"] if wants_floor else []
    if options.max_floor_rmse_m is None:
        return []
    if best is None:
        return ["floor_rmse_m could not be measured: nothing tells metres"]
    rmse = best * floor.rmse
    is_rough = not rmse <= options.max_floor_rmse_m
    return [f"floor_rmse_m {rmse:.4g} > {options.max_floor_rmse_m:.4g}"] if is_rough else []
