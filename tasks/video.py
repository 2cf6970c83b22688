"""Stage 2: the seed becomes a camera-controlled video, with the requested cameras as its cameras."""

from __future__ import annotations

from pathlib import Path

from lyra_core.identity import rng_seed
from lyra_core.model import WorldModel

from lyra_core.spec import WorldSpec
from lyra_core.values import Seed, VideoClip
from tasks.recipe import Recipe


def generate_video(model: WorldModel, seed: Seed, spec: WorldSpec, recipe: Recipe) -> VideoClip:
    """Generate the clip of a world; every random draw derives from the world's id.

    Raises:
        CameraPathError, PromptError, OutOfMemoryError: from the model.
    """
    from dataclasses import replace

    clip = model.generate(
        seed,
        resolve_camera_path(spec.camera_path),
        num_frames=spec.num_frames,
        seed=rng_seed(spec.chunk_ids[0], "video"),
        prompts=list(spec.prompts) or None,
        width=recipe.width,
        height=recipe.height,
    )
    return replace(clip, fps=recipe.fps)


def resolve_camera_path(name_or_file: str) -> str:
    """A preset's name as it is; a trajectory file by its absolute path, wherever the worker runs."""
    return str(Path(name_or_file).resolve()) if Path(name_or_file).is_file() else name_or_file
