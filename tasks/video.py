"""Stage 2: the seed becomes a camera-controlled video, with the requested cameras as its cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lyra_core.errors import CameraPathError
from lyra_core.geometry.requests import cameras_digest
from lyra_core.identity import rng_seed
from lyra_core.spec import WorldSpec
from lyra_core.values import Seed, VideoClip
from lyra_core.world_models.protocol import WorldModel
from tasks.recipe import Recipe


def generate_video(model: WorldModel, seed: Seed, spec: WorldSpec, recipe: Recipe, scratch: Path) -> VideoClip:
    """Generate the clip of a world; every random draw derives from the world's ids.

    Args:
        model: loaded by the worker.
        seed: decoded at the recipe's size.
        spec: what is asked, with the ids of its chunks.
        recipe: names the frame rate.
        scratch: the world's own folder, in which a model keeps finished chunks.

    Raises:
        CameraPathError, PromptError, OutOfMemoryError: from the model.
    """
    _require_same_cameras(spec, recipe)
    clip = model.generate(
        seed,
        spec.camera_path,
        num_frames=spec.num_frames,
        seed=rng_seed(spec.chunk_ids[0], "video"),
        prompts=list(spec.prompts) or None,
        width=seed.image.shape[1],
        height=seed.image.shape[0],
        chunk_ids=spec.chunk_ids,
        chunk_dir=scratch,
    )
    return replace(clip, fps=recipe.fps)


def _require_same_cameras(spec: WorldSpec, recipe: Recipe) -> None:
    """Refuse a camera file that was changed after its cameras went into the world's id."""
    if not spec.cameras_sha256:
        return
    digest = cameras_digest(recipe.requested_cameras(spec.camera_path, spec.num_frames))
    if digest != spec.cameras_sha256:
        raise CameraPathError(
            f"camera file {spec.camera_path}: its cameras changed after planning (wanted sha256 "
            f"{spec.cameras_sha256[:12]}, found {digest[:12]}); run the same command again to plan the new ones"
        )
