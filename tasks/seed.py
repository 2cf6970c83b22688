"""Stage 1: the photograph's bytes become an oriented, cropped sRGB image with intrinsics."""

from __future__ import annotations

import hashlib

from lyra_core.errors import SeedError
from lyra_core.formats.blank import require_content
from lyra_core.formats.image import load_seed
from lyra_core.public_uri import public_uri
from lyra_core.seed_source import read_seed_bytes
from lyra_core.spec import WorldSpec
from lyra_core.values import Seed
from tasks.recipe import Recipe


def read_seed(spec: WorldSpec, recipe: Recipe) -> Seed:
    """Read and decode the seed of a world at the recipe's size.

    Raises:
        SeedError: missing, changed since planning, not a usable photograph, or one with nothing to see.
        SourceError: its storage is at fault.
    """
    data, name = read_seed_bytes(spec.seed_uri), public_uri(spec.seed_uri)
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.seed_sha256:
        raise SeedError(
            f"seed {name}: its bytes changed after planning (wanted sha256 {spec.seed_sha256[:12]}, found "
            f"{digest[:12]}); run the same command again to plan the new photograph"
        )
    seed = load_seed(data, uri=name, width=recipe.width, height=recipe.height, hfov_deg=spec.hfov_deg)
    require_content(seed.image, name)
    return seed
