"""Named recipes: functions that return complete parameter sets. A variant of a recipe is a model_copy of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from lyra_core.config.cosmos import CAMERA, DEPTH_TRANSFER, IMAGE, IMAGE_STUDENT
from lyra_core.config.geometry import GeometryOptions
from lyra_core.config.reconstruction import ReconstructionOptions
from lyra_core.config.video import CORRECTED_VIDEO, MINI_VIDEO, REFERENCE_VIDEO, VideoOptions
from lyra_core.entry_point import load_entry_point
from lyra_core.errors import RecipeError
from tasks.recipe import WORLD_FILES, Recipe, with_fields

DEFAULT_RECIPE = "mini"
"""Of `make run`, `lyra run`, the flow's parameters and the deployments; the model of `lyra_core.load_model()`."""


def parallax() -> Recipe:
    """The baseline without learning: depth layers, warp, hole filling. Runs anywhere."""
    return Recipe(
        name="parallax",
        description="Baseline without learning: depth layers from one photograph; seconds per world on a laptop.",
        model="parallax",
        width=416,
        height=240,
        seconds_per_world=8.0,
        bytes_per_world=14_000_000,
    )


def parallax_480p() -> Recipe:
    """The baseline at the resolution of Lyra 2."""
    return parallax().model_copy(
        update={
            "name": "parallax-480p",
            "description": "The baseline at 480x832, the resolution of Lyra 2.",
            "width": 832,
            "height": 480,
            "seconds_per_world": 30.0,
            "bytes_per_world": 55_000_000,
        }
    )


def mini() -> Recipe:
    """The embedded model: Lyra 2's networks and rollout at laptop size."""
    return Recipe(
        name="mini",
        description="The embedded model: generates on a CPU, in seconds; far beyond the photograph it blurs.",
        model="mini",
        weights_licenses=("apache-2.0",),
        precision="auto",
        width=224,
        height=128,
        prompt="a place",
        video=MINI_VIDEO,
        reconstruction=ReconstructionOptions(tier="100k", lifter="depth", anchor_views=8),
        geometry=GeometryOptions(),
        artifacts=(*WORLD_FILES, "mjcf"),
        seconds_per_world=25.0,
        bytes_per_world=8_000_000,
    )


def lyra2() -> Recipe:
    """The released Lyra 2 weights as their authors run them along a path of one's own."""
    return Recipe(
        name="lyra2",
        description="Lyra 2 as released: 35 steps, guidance 5, the authors' conditions; needs converted weights.",
        model="lyra2",
        weights="weights",
        weights_licenses=("nvidia-internal-research", "apache-2.0"),
        restricted_licenses=("nvidia-internal-research",),
        output_license="nvidia-internal-research",
        width=832,
        height=480,
        video=REFERENCE_VIDEO,
        reconstruction=ReconstructionOptions(),
        geometry=GeometryOptions(),
        seconds_per_world=420.0,
        bytes_per_world=90_000_000,
    )


def lyra2_fast() -> Recipe:
    """The released few-step student: a LoRA and four network calls a chunk, without guidance."""
    return lyra2().model_copy(
        update={
            "name": "lyra2-fast",
            "description": "Lyra 2 in four steps a chunk (the released distillation LoRA); a tenth of the time.",
            "video": VideoOptions(sampler="distilled", loras=("lora-dmd:1.0",)),
            "seconds_per_world": 75.0,
        }
    )


def lyra2_corrected() -> Recipe:
    """The released weights under conditions whose known faults are corrected (docs/decisions/0002)."""
    return lyra2().model_copy(
        update={
            "name": "lyra2-corrected",
            "description": "Lyra 2 with corrected conditions, which depart from those the weights were trained with.",
            "video": CORRECTED_VIDEO,
        }
    )


def parallax_da3() -> Recipe:
    """A chain without restricted weights: the baseline's video, lifted with Apache-2.0 depth and refined."""
    return Recipe(
        name="parallax-da3",
        description="License-clean reconstruction: Apache-2.0 depth, splats from pixels, refined on CUDA.",
        model="parallax-da3",
        weights="weights",
        weights_licenses=("apache-2.0",),
        width=832,
        height=480,
        reconstruction=ReconstructionOptions(lifter="depth", is_refined=True),
        geometry=GeometryOptions(),
        seconds_per_world=60.0,
        bytes_per_world=90_000_000,
    )


def cosmos3_nano() -> Recipe:
    """Cosmos 3 Nano, steered by the requested cameras. No weights of this chain restrict its worlds."""
    return Recipe(
        name="cosmos3-nano",
        description="Cosmos 3 Nano along your cameras, for worlds that may be published; needs converted weights.",
        model="cosmos3-nano",
        weights="weights",
        weights_licenses=("openmdw-1.1", "apache-2.0"),
        width=832,
        height=480,
        num_frames=121,
        fps=30.0,
        cosmos=CAMERA,
        reconstruction=ReconstructionOptions(lifter="depth", is_refined=True),
        geometry=GeometryOptions(),
        seconds_per_world=120.0,
        bytes_per_world=110_000_000,
    )


def cosmos3_super() -> Recipe:
    """The large sister of Nano."""
    return cosmos3_nano().model_copy(
        update={
            "name": "cosmos3-super",
            "description": "Cosmos 3 Super along your cameras: as cosmos3-nano, with four times its weights.",
            "model": "cosmos3-super",
            "seconds_per_world": 240.0,
        }
    )


def cosmos3_nano_depth() -> Recipe:
    """Nano steered by a video of the depth that is remembered: the spatial memory dictates the view."""
    return cosmos3_nano().model_copy(
        update={
            "name": "cosmos3-nano-depth",
            "description": "Cosmos 3 Nano steered by remembered depth: structure comes from the spatial memory.",
            "cosmos": DEPTH_TRANSFER,
            "seconds_per_world": 600.0,
        }
    )


def cosmos3_super_i2v() -> Recipe:
    """The image-to-video form of Super, which takes no cameras: worlds stand on those found in its frames."""
    return cosmos3_super().model_copy(
        update={
            "name": "cosmos3-super-i2v",
            "description": "Cosmos 3 Super image-to-video: words ask for the move, worlds stand on recovered cameras.",
            "model": "cosmos3-super-i2v",
            "cosmos": IMAGE,
            "reconstruction": ReconstructionOptions(lifter="depth", is_refined=True, cameras="recovered"),
            "seconds_per_world": 420.0,
        }
    )


def cosmos3_super_i2v_4step() -> Recipe:
    """The four-step student of the image-to-video form."""
    return cosmos3_super_i2v().model_copy(
        update={
            "name": "cosmos3-super-i2v-4step",
            "description": "The four-step student of cosmos3-super-i2v; a twentieth of its time in the video network.",
            "model": "cosmos3-super-i2v-4step",
            "cosmos": IMAGE_STUDENT,
            "seconds_per_world": 120.0,
        }
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "parallax": parallax,
    "parallax-480p": parallax_480p,
    "mini": mini,
    "lyra2": lyra2,
    "lyra2-fast": lyra2_fast,
    "lyra2-corrected": lyra2_corrected,
    "parallax-da3": parallax_da3,
    "cosmos3-nano": cosmos3_nano,
    "cosmos3-nano-depth": cosmos3_nano_depth,
    "cosmos3-super": cosmos3_super,
    "cosmos3-super-i2v": cosmos3_super_i2v,
    "cosmos3-super-i2v-4step": cosmos3_super_i2v_4step,
}


def find_recipe(name: str, assignments: Sequence[str] = ()) -> Recipe:
    """A recipe by name, with field=value assignments applied.

    Args:
        name: one of `RECIPES`, or "package.module:function" for a function of your own that returns a Recipe.
        assignments: as `--set` takes them.

    Raises:
        RecipeError: no such recipe, or an assignment that does not fit.
    """
    if name not in RECIPES and ":" not in name:
        raise RecipeError(
            f"recipe: wanted one of {', '.join(sorted(RECIPES))}, or package.module:function of your own, "
            f"found {name!r}; see: lyra recipes"
        )
    make = RECIPES[name] if name in RECIPES else cast("Callable[[], Recipe]", load_entry_point(name, "recipe"))
    recipe = make()
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe {name!r}: wanted a function that returns a Recipe, found {type(recipe).__name__}")
    return with_fields(recipe, list(assignments))
