"""Stage 2: the seed becomes a camera-controlled video, with the requested cameras as its cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lyra_core.identity import rng_seed
from lyra_core.model import WorldModel
from lyra_core.spec import WorldSpec
from lyra_core.values import Seed, VideoClip
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
