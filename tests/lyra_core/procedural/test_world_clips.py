"""Camera paths kept in a file come back as they were, and nobody reads half a file."""

import numpy as np
import pytest

from lyra_core.errors import ConfigError
from lyra_core.procedural.world_clips import PathPlan, load_views, sample_views, save_views


def test_paths_come_back_as_they_were(tmp_path):
    views = sample_views(range(2), "heldout", PathPlan(num_frames=3, names=("wander",), takes=1), (16, 24))
    path = tmp_path / "kept" / "wander-3.npz"
    save_views(path, {"heldout": views})
    for kept, made in zip(load_views(path, "heldout"), views, strict=True):
        assert kept.seed == made.seed
        np.testing.assert_allclose(kept.cam_to_world, made.cam_to_world, atol=1e-6)
        np.testing.assert_array_equal(kept.intrinsics, made.intrinsics)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ConfigError, match="no camera paths of split 'train'"):
        load_views(path, "train")


def test_a_writer_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    views = sample_views(range(1), "heldout", PathPlan(num_frames=2, names=("wander",), takes=1), (16, 24))
    path = tmp_path / "wander-2.npz"
    save_views(path, {"heldout": views})
    before = path.read_bytes()

    def half(file, **_):
        file.write(before[:20])
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="full"):
        save_views(path, {"heldout": views})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
