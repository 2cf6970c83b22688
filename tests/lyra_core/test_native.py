"""What a model was made for: defaults, and errors that name what is allowed."""

from __future__ import annotations

import pytest

from lyra_core.errors import FrameError
from lyra_core.native import CHUNK_FRAMES, NATIVE, Native
from lyra_core.video.vae.network import WAN21_VAE
from lyra_core.world_models.load import MODELS
from lyra_core.world_models.lyra2 import LYRA2_MIN_SIDE, LYRA2_SIZE
from lyra_core.world_models.parallax import ParallaxModel
from lyra_core.world_models.parallax_da3 import NATIVE_SIZE

MINI = Native(size=(224, 128), side_step=8, min_side=32, chunk_frames=80)


def test_no_size_is_the_native_one_and_another_that_fits_is_taken():
    assert MINI.chosen_size(None, None) == (224, 128)
    assert MINI.chosen_size(32, 256) == (32, 256)


@pytest.mark.parametrize("size", [(100, 128), (224, 24), (0, 128), (-8, 128)])
def test_sizes_that_cannot_work(size):
    with pytest.raises(FrameError, match=rf"multiples of 8 .* at least 32, found {size[0]}x{size[1]}; .*224x128"):
        MINI.chosen_size(*size)


@pytest.mark.parametrize("size", [(224, None), (None, 128)])
def test_half_a_size(size):
    with pytest.raises(FrameError, match="give both, or neither for 224x128"):
        MINI.chosen_size(*size)


@pytest.mark.parametrize(("frames", "nearest"), [(80, "81 and 161"), (100, "81 and 161"), (162, "161 and 241")])
def test_frame_counts(frames, nearest):
    MINI.require_frames(161)
    with pytest.raises(FrameError, match=rf"1 \+ 80k frames, found {frames}; the nearest are {nearest}"):
        MINI.require_frames(frames)


def test_planning_knows_what_the_models_were_made_for():
    """mini's is compared where it is loaded (generative/test_mini.py)."""
    assert list(NATIVE) == list(MODELS)
    assert NATIVE["parallax"] == ParallaxModel.native
    assert NATIVE["parallax-da3"].size == NATIVE_SIZE
    lyra2 = Native(
        size=LYRA2_SIZE, side_step=WAN21_VAE.spatial_factor, min_side=LYRA2_MIN_SIDE, chunk_frames=CHUNK_FRAMES
    )
    assert NATIVE["lyra2"] == lyra2
