"""Stage 2: the seed becomes a camera-controlled video, with the requested cameras as its cameras."""

from __future__ import annotations

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
        spec.camera_path,
        num_frames=spec.num_frames,
        seed=rng_seed(spec.chunk_ids[0], "video"),
        prompts=list(spec.prompts) or None,
        width=seed.image.shape[1],
        height=seed.image.shape[0],
    )
    return replace(clip, fps=recipe.fps)
