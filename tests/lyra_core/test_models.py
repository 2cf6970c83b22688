"""One table of models: what planning knows of them is what they are."""

from __future__ import annotations

import pytest

from lyra_core.entry_point import load_entry_point
from lyra_core.models import MODELS
from lyra_core.native import CHUNK_FRAMES, Native
from lyra_core.video.vae.network import WAN21_VAE
from lyra_core.weights.registry import WEIGHT_SETS
from lyra_core.world_models.lyra2 import LYRA2_MIN_SIDE, LYRA2_SIZE
from lyra_core.world_models.parallax import ParallaxModel
from lyra_core.world_models.parallax_da3 import NATIVE_SIZE
from tasks.recipe import VIDEO_GROUPS


def test_planning_knows_what_the_models_were_made_for():
    """mini's is compared where it is loaded (world_models/test_mini.py), Cosmos 3's in cosmos/test_model.py."""
    assert MODELS["parallax"].native == ParallaxModel.native
    assert MODELS["parallax-da3"].native.size == NATIVE_SIZE
    lyra2 = Native(
        size=LYRA2_SIZE, side_step=WAN21_VAE.spatial_factor, min_side=LYRA2_MIN_SIDE, chunk_frames=CHUNK_FRAMES
    )
    assert MODELS["lyra2"].native == lyra2


@pytest.mark.parametrize("name", list(MODELS))
def test_an_entry_names_what_exists(name):
    known = MODELS[name]
    assert callable(load_entry_point(known.home, "model"))
    assert known.group is None or known.group in VIDEO_GROUPS
    assert all(item in WEIGHT_SETS for part in known.parts for item in part.sets)
