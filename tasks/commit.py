"""Stage 6: payloads are uploaded whole, and then one row, created if absent, makes the world exist."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

import lyra_core
from catalogs.commit import CommitOutcome, commit
from lyra_core.formats.store import Store
from lyra_core.identity import ALGORITHM_VERSION, canonical_digest, canonical_json, rng_seed
from lyra_core.layout import new_upload, upload_prefix
from lyra_core.public_uri import public_uri
from lyra_core.records import Artifact, WorldRecord, frame_table
from lyra_core.values import CameraPath, Gaussians
from tasks.artifacts import LocalArtifact
from tasks.outcome import FIRST_START, Outcome, Start
from tasks.quality import reject_reasons
from tasks.weights import video_digest
from tasks.worker_config import WorkerConfig
from tasks.world import MadeWorld, StageClock

if TYPE_CHECKING:
    import pyarrow as pa

QUALITY_VERSION = "1"


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


def store_world(
    store: Store,
    config: WorkerConfig,
    made: MadeWorld,
    files: list[LocalArtifact],
    clock: StageClock,
    dispatch: Dispatch,
) -> Outcome:
    """Upload every payload, then commit; may be called again with the same arguments after a StoreError.

    Where another writer was first, its files stay as they are and those of this attempt are removed.

    Raises:
        StoreError: storage is unwritable or full; nothing is visible in the catalog then.
    """
    folder = upload_prefix(made.spec.world_id, dispatch.upload)
    with clock("upload"):
        artifacts = []
        for file in files:
            stored = store.put_file(folder + file.name, file.path)
            artifacts.append(
                Artifact(
                    role=file.role,
                    key=stored.key,
                    media_type=file.media_type,
                    bytes=stored.bytes,
                    sha256=stored.sha256,
                    etag=stored.etag,
                )
            )
    record = world_record(config, made, clock, dispatch).with_artifacts(artifacts, store.root)
    outcome = commit(store, record, _frames(made))
    if outcome is CommitOutcome.EXISTS:
        for artifact in artifacts:
            store.delete(artifact.key)
        return Outcome(spec=made.spec, kind="exists")
    return Outcome(
        spec=made.spec,
        kind="created",
        accepted=record.accepted,
        num_splats=len(made.gaussians),
        num_bytes=sum(a.bytes for a in artifacts),
        psnr_db=record.psnr_db,
        stage_s=dict(clock.stage_s),
        thumbnail=made.pictures.thumbnail,
    )


def world_record(config: WorkerConfig, made: MadeWorld, clock: StageClock, dispatch: Dispatch) -> WorldRecord:
    """Everything the catalog keeps of a world, except its files."""
    spec, seed, clip, recipe, quality = made.spec, made.seed, made.clip, config.recipe, made.quality
    reasons = reject_reasons(quality, recipe, made.report)
    finished = datetime.now(UTC)
    hashed = recipe.hashed_fields()
    intrinsics = clip.cameras.intrinsics[0]
    digests, provenance = config.weights_digests or (), made.provenance
    has_metres = provenance.metric_scale_source != "none"
    return WorldRecord(
        world_id=spec.world_id,
        run_id=config.run_id,
        attempt=dispatch.start.attempt,
        retries=dispatch.start.attempt - 1,
        worker_id=dispatch.worker_id,
        queue_s=dispatch.start.queue_s,
        folder=upload_prefix(spec.world_id, dispatch.upload),
        name=spec.name.rsplit("-", 1)[0],
        chunk_ids=spec.chunk_ids,
        variant=spec.variant,
        recipe=recipe.name,
        recipe_json=canonical_json(hashed),
        config_sha256=canonical_digest(hashed),
        algorithm_version=ALGORITHM_VERSION,
        seed_uri=public_uri(spec.seed_uri),
        seed_sha256=spec.seed_sha256,
        seed_width=seed.original_size[0],
        seed_height=seed.original_size[1],
        seed_license=spec.seed_license,
        seed_source_url=public_uri(spec.seed_source_url) if spec.seed_source_url else None,
        seed_attribution=spec.seed_attribution,
        rng_seed=rng_seed(spec.chunk_ids[0], "video"),
        model_name=recipe.model,
        checkpoint_uri=public_uri(recipe.weights) if recipe.weights else None,
        checkpoint_sha256=video_digest(recipe, digests),
        weights_digests=digests,
        weights_licenses=recipe.weights_licenses,
        accepted_licences=config.accepted_licenses,
        code_git_commit=config.code_commit or None,
        package_version=lyra_core.__version__,
        precision=provenance.precision,
        inference_steps=provenance.num_steps,
        guidance=provenance.guidance,
        prompt="\n".join(spec.prompts) or None,
        negative_prompt=provenance.negative_prompt,
        trajectory_name=clip.cameras.name,
        trajectory_sha256=spec.cameras_sha256 or None,
        width=clip.cameras.image_width,
        height=clip.cameras.image_height,
        num_frames=len(clip),
        num_keyframes=made.report.num_keyframes if made.report else None,
        fps=clip.fps,
        camera_model="pinhole",
        fx=float(intrinsics[0, 0]),
        fy=float(intrinsics[1, 1]),
        cx=float(intrinsics[0, 2]),
        cy=float(intrinsics[1, 2]),
        camera_convention="opencv_w2c",
        path_length_m=path_length_m(clip.cameras),
        total_rotation_deg=total_rotation_deg(clip.cameras),
        camera_residual_deg=made.report.residual_deg if made.report else None,
        camera_residual_percent=made.report.residual_percent if made.report else None,
        cameras_source=made.report.cameras if made.report else None,
        num_splats=len(made.gaussians),
        sh_degree=made.gaussians.sh_degree,
        **_bounds(made.gaussians),
        meters_per_unit=1.0 if has_metres else None,
        metric_scale_source=provenance.metric_scale_source,
        psnr_db=quality.psnr_db if quality else None,
        ssim=quality.ssim if quality else None,
        floater_frac=quality.floater_frac if quality else None,
        coverage_frac=quality.coverage_frac if quality else None,
        opacity_mean=float(made.gaussians.opacities.mean()),
        is_refined=made.report.is_refined if made.report else None,
        refine_gain_db=made.report.refine_gain_db if made.report else None,
        quality_version=QUALITY_VERSION if quality else None,
        accepted=not reasons,
        reject_reasons=tuple(reasons),
        stage_s=dict(clock.stage_s),
        wall_s=(finished - clock.started_at).total_seconds(),
        **_gpu(config.device, (finished - clock.started_at).total_seconds()),
        output_license=recipe.output_license or spec.seed_license,
        created_at=finished,
        started_at=clock.started_at,
        finished_at=finished,
    )


def path_length_m(cameras: CameraPath) -> float:
    """Metres the camera centre travels."""
    return float(cameras.centers_m.diff(dim=0).norm(dim=1).sum())


def total_rotation_deg(cameras: CameraPath) -> float:
    """Sum of the angles between successive frames, degrees."""
    rotation = cameras.world_to_cam[:, :3, :3]
    cosine = ((rotation[1:] @ rotation[:-1].mT).diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return math.degrees(float(cosine.clamp(-1, 1).acos().sum()))


def _bounds(gaussians: Gaussians) -> dict[str, Any]:
    means = gaussians.means
    # kthvalue per axis rather than quantile, which refuses more than 16 million values.
    low, high = max(1, len(means) // 100), max(1, len(means) - len(means) // 100)
    return {
        "bounds_min": _triple(means.amin(0)),
        "bounds_max": _triple(means.amax(0)),
        "bounds_p01": _triple(means.kthvalue(low, dim=0).values),
        "bounds_p99": _triple(means.kthvalue(high, dim=0).values),
    }


def _triple(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _gpu(device: str, wall_s: float) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return {"gpu_count": 0, "gpu_seconds": 0.0}
    return {
        "gpu_count": 1,
        "gpu_seconds": wall_s,
        "gpu_name": torch.cuda.get_device_name(),
        "peak_vram_bytes": torch.cuda.max_memory_allocated(),
    }


def _frames(made: MadeWorld) -> pa.Table:
    cameras = made.clip.cameras
    return frame_table(
        made.spec.world_id,
        cameras.world_to_cam.numpy(),
        cameras.intrinsics.numpy(),
        fps=made.clip.fps,
        image_size=(cameras.image_width, cameras.image_height),
    )
