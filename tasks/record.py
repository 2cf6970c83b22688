"""The catalog's row of a world: what it was made from, how, at what cost and how good it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

import lyra_core
from lyra_core.frame_table import frame_table
from lyra_core.gaussians.extent import extent
from lyra_core.geometry.path_measures import path_length_m, total_rotation_deg
from lyra_core.identity import ALGORITHM_VERSION, canonical_digest, canonical_json, rng_seed
from lyra_core.layout import new_upload, upload_prefix
from lyra_core.public_uri import public_uri
from lyra_core.quality import QUALITY_VERSION
from lyra_core.records import WorldRecord
from lyra_core.values import Part
from tasks.geometry import geometry_reasons
from tasks.outcome import FIRST_START, Start
from tasks.quality import reject_reasons
from tasks.weights import video_digest
from tasks.worker_config import WorkerConfig
from tasks.world import MadeWorld, StageClock

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One attempt at a world, as its row tells of it.

    Attributes:
        start: what the pool knew of it.
        worker_id: host and process of the worker.
        upload: name of the folder for the files, which no other attempt has.
    """

    start: Start = FIRST_START
    worker_id: str | None = None
    upload: str = field(default_factory=new_upload)


def world_record(config: WorkerConfig, made: MadeWorld, clock: StageClock, dispatch: Dispatch) -> WorldRecord:
    """Everything the catalog keeps of a world, except its files."""
    reasons = reject_reasons(made.quality, config.recipe, made.report)
    if made.geometry is not None and config.recipe.geometry is not None:
        reasons += geometry_reasons(made.geometry.scene, config.recipe.geometry)
    return WorldRecord(
        run_id=config.run_id,
        attempt=dispatch.start.attempt,
        retries=dispatch.start.attempt - 1,
        worker_id=dispatch.worker_id,
        queue_s=dispatch.start.queue_s,
        folder=upload_prefix(made.spec.world_id, dispatch.upload),
        accepted=not reasons,
        reject_reasons=tuple(reasons),
        **_request(made, config),
        **(_model(made, config) | _geometry(made)),
        **_video(made),
        **_gaussians(made),
        **_quality(made),
        **_cost(config, clock),
    )


def world_frames(made: MadeWorld) -> pa.Table:
    """The cameras of a world, as the `frames` table has them."""
    cameras = made.clip.cameras
    return frame_table(
        made.spec.world_id,
        cameras.world_to_cam.numpy(),
        cameras.intrinsics.numpy(),
        fps=made.clip.fps,
        image_size=(cameras.image_width, cameras.image_height),
    )


def _request(made: MadeWorld, config: WorkerConfig) -> dict[str, Any]:
    """Ids, the seed image, the recipe and what was asked of them."""
    spec, hashed = made.spec, config.recipe.hashed_fields()
    width, height = made.seed.original_size
    return {
        "world_id": spec.world_id,
        "name": spec.stem,
        "chunk_ids": spec.chunk_ids,
        "variant": spec.variant,
        "recipe": config.recipe.name,
        "recipe_json": canonical_json(hashed),
        "config_sha256": canonical_digest(hashed),
        "algorithm_version": ALGORITHM_VERSION,
        "seed_uri": public_uri(spec.seed_uri),
        "seed_sha256": spec.seed_sha256,
        "seed_width": width,
        "seed_height": height,
        "seed_license": spec.seed_license,
        "seed_source_url": public_uri(spec.seed_source_url) if spec.seed_source_url else None,
        "seed_attribution": spec.seed_attribution,
        "rng_seed": rng_seed(spec.chunk_ids[0], "video"),
        "prompt": "\n".join(spec.prompts) or None,
        "trajectory_sha256": spec.cameras_sha256 or None,
        "output_license": config.recipe.output_license or spec.seed_license,
    }


def _model(made: MadeWorld, config: WorkerConfig) -> dict[str, Any]:
    """Weights, code and arithmetic."""
    recipe, digests, provenance = config.recipe, config.weights_digests or (), made.provenance
    return {
        "model_name": recipe.model,
        "checkpoint_uri": public_uri(recipe.weights) if recipe.weights else None,
        "checkpoint_sha256": video_digest(recipe, digests),
        "weights_digests": digests,
        "weights_licenses": recipe.weights_licenses,
        "accepted_licenses": config.accepted_licenses,
        "code_git_commit": config.code_commit or None,
        "package_version": lyra_core.__version__,
        "precision": provenance.precision,
        "speed": provenance.speed,
        "inference_steps": provenance.num_steps,
        "guidance": provenance.guidance,
        "negative_prompt": provenance.negative_prompt,
        "meters_per_unit": 1.0 if provenance.metric_scale_source == "depth_model" else None,
        "metric_scale_source": provenance.metric_scale_source,
    }


def _video(made: MadeWorld) -> dict[str, Any]:
    """The clip and its cameras."""
    clip, cameras = made.clip, made.clip.cameras
    intrinsics = cameras.intrinsics[0].tolist()
    return {
        "trajectory_name": cameras.name,
        "width": cameras.image_width,
        "height": cameras.image_height,
        "num_frames": len(clip),
        "fps": clip.fps,
        "camera_model": "pinhole",
        "fx": intrinsics[0][0],
        "fy": intrinsics[1][1],
        "cx": intrinsics[0][2],
        "cy": intrinsics[1][2],
        "camera_convention": "opencv_w2c",
        "path_length_m": path_length_m(cameras),
        "total_rotation_deg": total_rotation_deg(cameras),
    }


def _gaussians(made: MadeWorld) -> dict[str, Any]:
    """The Gaussians, and how their reconstruction went where the model tells."""
    box, report = extent(made.gaussians), made.report
    found = {
        "num_splats": len(made.gaussians),
        "num_surface_splats": len(made.gaussians.of_parts(Part.KEYFRAME)),
        "sh_degree": made.gaussians.sh_degree,
        "bounds_min": box.least,
        "bounds_max": box.greatest,
        "bounds_p01": box.p01,
        "bounds_p99": box.p99,
        "opacity_mean": float(made.gaussians.opacities.mean()),
    }
    if report is None:
        return found
    return found | {
        "num_keyframes": report.num_keyframes,
        "camera_residual_deg": report.residual_deg,
        "camera_residual_percent": report.residual_percent,
        "cameras_source": report.cameras,
        "is_refined": report.is_refined,
        "refine_gain_db": report.refine_gain_db,
    }


def _geometry(made: MadeWorld) -> dict[str, Any]:
    """Floor, up, scale and place to stand; the scale replaces what `_model` says of it."""
    if made.geometry is None:
        return {}
    scene, collision = made.geometry.scene, made.geometry.collision
    best, floor, scale = scene.doubtful_floor, scene.floor, scene.scale
    space, spawn = scene.free_space, scene.free_space.spawn if scene.free_space is not None else None
    found: dict[str, Any] = {
        "world_up": scene.up,
        "up_source": scene.up_source,
        "meters_per_unit": scale.meters_per_unit,
        "meters_per_unit_prior": scale.prior,
        "metric_scale_source": scale.source,
        "scale_confidence": scale.confidence,
        "world_to_ground": tuple(scene.frame.matrix.ravel().tolist()),
        "floor_confidence": floor.confidence if floor is not None else 0.0,
        "geometry_reasons": scene.reasons,
        "mesh_faces": len(collision) if collision is not None else None,
    }
    if best is not None:
        found |= {
            "floor_inlier_frac": best.inliers,
            "floor_tilt_deg": best.tilt_deg,
            "floor_spread_deg": best.spread_deg,
        }
    if floor is not None and scale.best is not None:
        found |= {"floor_z_m": -scale.best * floor.camera_height, "floor_rmse_m": scale.best * floor.rmse}
    if space is not None:
        found["free_area_m2"] = space.area_m2
    if spawn is not None:
        found |= {
            "spawn_m": (spawn.x, spawn.y, spawn.z),
            "spawn_yaw_rad": spawn.yaw_rad,
            "spawn_clearance_m": spawn.clearance_m,
        }
    return found


def _quality(made: MadeWorld) -> dict[str, Any]:
    quality = made.quality
    if quality is None:
        return {}
    measured = (
        *("psnr_db", "ssim", "floater_frac", "coverage_frac", "texture_frac", "motion_px", "motion_frac"),
        *("flicker_levels", "revisit_db", "isolated_frac", "needle_frac"),
    )
    found = {name: float(getattr(quality, name)) for name in measured}
    return {
        **{name: None if math.isnan(value) else value for name, value in found.items()},
        "quality_version": QUALITY_VERSION,
    }


def _cost(config: WorkerConfig, clock: StageClock) -> dict[str, Any]:
    """Times of this attempt and the GPU it took."""
    finished = datetime.now(UTC)
    wall_s = (finished - clock.started_at).total_seconds()
    on_gpu = config.device.startswith("cuda")
    found: dict[str, Any] = {
        "stage_s": dict(clock.stage_s),
        "wall_s": wall_s,
        "device_idle_s": clock.idle_s,
        "gpu_count": config.num_devices if on_gpu else 0,
        "gpu_seconds": wall_s * config.num_devices if on_gpu else 0.0,
        "created_at": finished,
        "started_at": clock.started_at,
        "finished_at": finished,
    }
    if on_gpu:
        found |= {"gpu_name": torch.cuda.get_device_name(), "peak_vram_bytes": torch.cuda.max_memory_allocated()}
    return found
