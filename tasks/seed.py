"""Stage 1: the photograph's bytes become an oriented, cropped sRGB image with intrinsics."""

from __future__ import annotations

import hashlib

import fsspec

from lyra_core.errors import SeedError
from lyra_core.formats.blank import require_content
from lyra_core.formats.image import load_seed
from lyra_core.spec import WorldSpec
from lyra_core.values import Seed
from tasks.recipe import Recipe


def read_seed(spec: WorldSpec, recipe: Recipe) -> Seed:
    """Read and decode the seed of a world at the recipe's size.

    Raises:
        SeedError: missing, changed since planning, not a usable photograph, or one with nothing to see.
    """
    try:
        with fsspec.open(spec.seed_uri, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise SeedError(
            f"seed {spec.seed_uri}: wanted an image file, found nothing there; restore it or drop it"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.seed_sha256:
        raise SeedError(
            f"seed {spec.seed_uri}: its bytes changed after planning (wanted sha256 {spec.seed_sha256[:12]}, found "
            f"{digest[:12]}); run the same command again to plan the new photograph"
        )
    seed = load_seed(data, uri=spec.seed_uri, width=recipe.width, height=recipe.height, hfov_deg=spec.hfov_deg)
    require_content(seed.image, spec.seed_uri)
    return seed
