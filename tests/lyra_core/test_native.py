"""What a model was made for: defaults, and errors that name what is allowed."""

from __future__ import annotations

import pytest

from lyra_core.errors import FrameError
from lyra_core.native import Native

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
